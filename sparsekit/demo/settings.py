"""What the demo does how much of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Sizes and learning rates of one run; the same settings give the same student."""

    seed: int = 0
    sparsity: float = 0.85
    train_sentences: int | None = None  # None: all that are not test sentences
    test_sentences: int = 1500
    far_sentences: int = 500  # from another source than the training data
    max_tokens: int = 48
    batch_size: int = 32
    teacher_epochs: float = 1.0
    teacher_learning_rate: float = 1e-4
    calibration_sentences: int = 256
    student_epochs: float = 1.0
    student_learning_rate: float = 1e-3
    temperature: float = 2.0
    alpha: float = 0.2
    timing_seconds: float = 16.0

    def replace(self, **changes: Any) -> Settings:
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)


FULL = Settings()
FAST = Settings(
    sparsity=0.8,
    train_sentences=960,
    test_sentences=300,
    far_sentences=100,
    calibration_sentences=128,
    timing_seconds=4.0,
)
