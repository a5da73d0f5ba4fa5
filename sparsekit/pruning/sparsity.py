"""The sparsity that each layer is to reach: checked, by layer, or as the mask's structure prescribes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from sparsekit.pruning.masks.from_scores import check_scope, structure_sparsity


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless `sparsity` is in [0, 1)."""
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}; 0.8 makes 80% of the weights zero")


def wanted_sparsity(sparsity: float | None, threshold: float | None, mask_structure: str) -> float | None:
    """The sparsity to reach, None for a threshold.

    Raises:
        ValueError: the arguments contradict each other or are out of range.
    """
    prescribed = structure_sparsity(mask_structure)
    if threshold is not None:
        if sparsity is not None or mask_structure != "unstructured":
            raise ValueError("threshold stands alone: leave out sparsity and mask_structure")
        return None
    wanted = prescribed if sparsity is None else sparsity
    if wanted is None:
        raise ValueError("give sparsity (a fraction such as 0.8) or threshold (a magnitude)")
    check_sparsity(wanted)
    if prescribed is not None and not math.isclose(wanted, prescribed):
        raise ValueError(f"mask_structure {mask_structure!r} means sparsity {prescribed}, got {wanted}")
    return wanted


def sparsities_of(
    layers: Iterable[str], sparsity: float | Mapping[str, float] | None, mask_structure: str
) -> dict[str, float]:
    """Every layer's sparsity to reach.

    Args:
        layers: names of the layers to prune.
        sparsity: one for all, or by layer; None where the structure prescribes it.
        mask_structure: as in `prune`.

    Raises:
        ValueError: as `wanted_sparsity`; sparsities by layer are of other layers.
    """
    if not isinstance(sparsity, Mapping):
        return dict.fromkeys(layers, wanted_sparsity(sparsity, None, mask_structure) or 0.0)
    wanted, given = set(layers), set(sparsity)
    for these, what in ((wanted - given, "no sparsity for"), (given - wanted, "no layer to prune of the name")):
        if these:
            more = f" and {len(these) - 3} more" if len(these) > 3 else ""
            raise ValueError(
                f"there is {what} {', '.join(sorted(these)[:3])}{more}; sparsities by layer need one for each that "
                "targets and ignore select"
            )
    for name, each in sparsity.items():
        try:
            wanted_sparsity(each, None, mask_structure)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return dict(sparsity)


def sparsity_of_groups(
    groups: Sequence[Mapping[str, nn.Module]],
    sparsity: float | Mapping[str, float] | None,
    threshold: float | None,
    mask_structure: str,
) -> float | Mapping[str, float] | None:
    """The sparsity to reach of groups of layers that share one weight, None for a threshold.

    Raises:
        ValueError: as `sparsities_of`; also when layers that share a weight are to have different sparsities.
    """
    if not isinstance(sparsity, Mapping):
        return wanted_sparsity(sparsity, threshold, mask_structure)
    if threshold is not None:
        raise ValueError("threshold stands alone: leave out sparsity")
    found = sparsities_of([name for group in groups for name in group], sparsity, mask_structure)
    for group in groups:
        if len({found[name] for name in group}) > 1:
            parts = ", ".join(f"{name} {found[name]}" for name in group)
            raise ValueError(f"layers that share one weight need one sparsity, got {parts}")
    return found


def check_bounds(floor: float, ceiling: float, sparsity: float | Mapping[str, float] | None, scope: str) -> None:
    """Raise ValueError unless masks of this sparsity and scope can keep every layer between the bounds."""
    if sparsity is not None:
        check_scope(scope, sparsity)
    if (floor, ceiling) == (0.0, 1.0):
        return
    if scope != "global" or sparsity is None or isinstance(sparsity, Mapping):
        got = "one for each layer" if isinstance(sparsity, Mapping) else sparsity
        raise ValueError(f"floor and ceiling need a sparsity and scope='global', got {got} and scope={scope!r}")
    if not 0.0 <= floor <= sparsity <= ceiling <= 1.0:
        raise ValueError(
            f"no masks of sparsity {sparsity} have between {floor} and {ceiling} in every layer; it must be "
            "0 <= floor <= sparsity <= ceiling <= 1"
        )
