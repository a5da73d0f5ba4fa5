"""Sparsity schedules of gradual pruning (cubic: Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878)."""

from __future__ import annotations

from dataclasses import dataclass

#: Shape of the rise -> exponent of the part that is left. "one_shot" prunes everything at the start.
_EXPONENTS = {"one_shot": None, "linear": 1, "cubic": 3}


@dataclass(frozen=True)
class Schedule:
    """Sparsity by training step: `initial_sparsity` at `start`, `final_sparsity` from `end` on.

    Args:
        final_sparsity: in [0, 1).
        initial_sparsity: in [0, final_sparsity].
        start: first step that prunes.
        end: step from which the final sparsity is there; after `start` unless the rise is "one_shot".
        frequency: steps from one pruning to the next.
        rise: "one_shot", "linear" or "cubic", which prunes fast at first and slowly at the end.
            "linear" with a low frequency alternates: prune, train for `frequency` steps, prune, train, each time by the
            same share of all weights.

    Raises:
        ValueError: an argument is out of range.

    >>> schedule = Schedule(0.8, end=100, frequency=10)
    >>> [round(schedule.sparsity_at(step), 2) for step in (0, 50, 100, 200)]
    [0.0, 0.7, 0.8, 0.8]
    >>> [step for step in range(205) if schedule.prunes_at(step)]
    [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    >>> alternating = Schedule(0.8, 0.2, end=300, frequency=100, rise="linear")
    >>> {step: round(alternating.sparsity_at(step), 2) for step in range(500) if alternating.prunes_at(step)}
    {0: 0.2, 100: 0.4, 200: 0.6, 300: 0.8}
    """

    final_sparsity: float
    initial_sparsity: float = 0.0
    start: int = 0
    end: int = 0
    frequency: int = 1
    rise: str = "cubic"

    def __post_init__(self) -> None:
        if not 0.0 <= self.initial_sparsity <= self.final_sparsity < 1.0:
            raise ValueError(
                "sparsities must be 0 <= initial_sparsity <= final_sparsity < 1, got "
                f"{self.initial_sparsity} and {self.final_sparsity}"
            )
        if self.rise not in _EXPONENTS:
            raise ValueError(f"rise must be one of {', '.join(_EXPONENTS)}, got {self.rise!r}")
        if self.start < 0 or self.frequency < 1:
            raise ValueError(
                f"start must be at least 0 and frequency at least 1, got {self.start} and {self.frequency}"
            )
        if self.rise != "one_shot" and self.end <= self.start:
            raise ValueError(f"a {self.rise} rise must end after its start, got {self.start} to {self.end}")

    def left_at(self, step: int) -> float:
        """Part of the rise that is still to come at a step: 1 before the start, 0 from the end on."""
        exponent = _EXPONENTS[self.rise]
        if step < self.start:
            return 1.0
        if exponent is None or step >= self.end:
            return 0.0
        linear: float = 1.0 - (step - self.start) / (self.end - self.start)
        return linear**exponent

    def sparsity_at(self, step: int) -> float:
        """The sparsity that belongs to a step; `initial_sparsity` before the start."""
        left = self.left_at(step)
        if left == 1.0:
            return self.initial_sparsity
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left

    def prunes_at(self, step: int) -> bool:
        """Whether to prune before this step: every `frequency` steps from the start on, and at the end."""
        if self.rise == "one_shot":
            return step == self.start
        if not self.start <= step <= self.end:
            return False
        return step == self.end or (step - self.start) % self.frequency == 0
