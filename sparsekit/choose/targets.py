"""What the user wants of the compressed model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Targets:
    """Limits that a recommended point keeps to; None: any.

    Attributes:
        loss: largest part of the dense model's main score that may be lost.
        speedup: least speed-up over the fastest dense float32 engine.
        latency_ms: most milliseconds of one text.
        bytes: most bytes of weights on disk.

    Raises:
        ValueError: a target is out of range.
    """

    loss: float = 0.01
    speedup: float | None = None
    latency_ms: float | None = None
    bytes: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.loss <= 1.0:
            raise ValueError(f"max-loss must be in [0, 1], got {self.loss}; 0.01 keeps 99% of the score")
        for name, value in (
            ("target-speedup", self.speedup),
            ("max-latency-ms", self.latency_ms),
            ("max-mb", self.bytes),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
