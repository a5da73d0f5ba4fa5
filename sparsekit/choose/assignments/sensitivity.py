"""What it costs to prune a layer: its error, weighed by how much the model's outputs move for it.

The same relative error matters more in some layers than in others; SPDY (Frantar and Alistarh, arXiv 2201.11096)
searches coefficients for that. Here they are measured: by the model's divergence with one layer pruned at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsekit.choose.assignments.evolution import Judge
from sparsekit.choose.assignments.levels import SPARSITIES
from sparsekit.progress import Progress

#: The level at which layers are measured: neither almost dense nor almost empty.
_LEVEL = SPARSITIES.index(0.8)


def measured_costs(
    errors: Mapping[str, Sequence[float]], judge: Judge, batches: Sequence[int], *, level: int = _LEVEL
) -> dict[str, tuple[float, ...]]:
    """Costs of every layer's levels, for `assign_levels`: errors, scaled to the divergence measured at one level.

    Args:
        errors: layer name -> relative error of its solution at each level, 0 at level 0.
        judge: measures the divergence of an assignment on some batches.
        batches: numbers of the batches that count; few are enough.
        level: at which each layer is measured, all others being dense.

    Returns:
        Layer name -> cost at each level; inf where outputs are not finite with the layer pruned.

    Raises:
        ValueError: the level is 0, or there is none of that number.

    >>> measured_costs({"a": (0.0, 0.2, 0.4)}, lambda assignment, batches: 3.0, [0], level=1)
    {'a': (0.0, 3.0, 6.0)}
    """
    levels = min(len(values) for values in errors.values())
    if not 0 < level < levels:
        raise ValueError(f"layers are measured at a level from 1 to {levels - 1}, got {level}")
    dense = dict.fromkeys(errors, 0)
    found = {}
    for name, values in Progress(errors.items(), title="sensitivity", unit="layers", total=len(errors)):
        divergence = max(0.0, judge(dense | {name: level}, batches))
        scale = divergence / values[level] if values[level] else 0.0
        found[name] = tuple(scale * error if error else 0.0 for error in values)
    return found
