"""Apply the masks in state dicts of PyTorch's pruning tools and of this library."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

#: Suffixes of `torch.nn.utils.prune`: `layer.weight_orig` and `layer.weight_mask`.
_ORIGINAL, _MASK = "_orig", "_mask"
#: Keys of `torch.nn.utils.parametrize`, which `torch.ao.pruning` and this library's `prune` use:
#: `layer.parametrizations.weight.original` and `layer.parametrizations.weight.0.mask`.
_PARAMETRIZED = re.compile(r"(?P<layer>.*?)\bparametrizations\.(?P<tensor>[^.]+)\.(?P<part>original|\d+\.mask)")


def _masked(name: str, original: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The original with zeros where the mask is 0, even if it is inf or NaN there."""
    if original.shape != mask.shape:
        raise ValueError(f"the mask of {name!r} must have shape {list(original.shape)}, got {list(mask.shape)}")
    kept = mask != 0
    if bool((mask[kept] != 1).any()):
        raise ValueError(f"the mask of {name!r} must hold 0 and 1 only; merge other factors into the weight first")
    return torch.where(kept, original, torch.zeros((), dtype=original.dtype))


def _split(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Keys of originals and of masks, by the name of the masked tensor."""
    originals: dict[str, str] = {}
    masks: dict[str, list[str]] = {}
    for key in state:
        match = _PARAMETRIZED.fullmatch(key)
        stem = key.removesuffix(_ORIGINAL)
        if match:
            name = match["layer"] + match["tensor"]
            if match["part"] == "original":
                originals[name] = key
            else:
                masks.setdefault(name, []).append(key)
        elif stem != key and stem + _MASK in state:
            originals[stem] = key
            masks[stem] = [stem + _MASK]
    return originals, masks


def _check_rest(state: Mapping[str, torch.Tensor], used: set[str]) -> None:
    """Raise ValueError if a weight has a parametrization other than masks."""
    strange = [key for key in state if key not in used and re.search(r"\bparametrizations\.", key)]
    if strange:
        raise ValueError(
            f"{strange[0]!r} is of a parametrization without a mask beside it; give without_masks the masks that a "
            "sparsifier of torch.ao.pruning keeps, or remove other parametrizations where the model was made"
        )


def without_masks(
    state: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """A state dict with all masks applied, under the parameter names of the unpruned model.

    Args:
        state: state dict of a model pruned by `torch.nn.utils.prune`, by a sparsifier of `torch.ao.pruning` or by this
            library's `prune`; without masks, it is returned unchanged.
        masks: weight name -> mask, for masks that are not in the state dict. A sparsifier keeps its own:
            `{name: entry["mask"] for name, entry in sparsifier.state_dict()["state"].items()}`.

    Returns:
        State dict for `model.load_state_dict`; tensors without a mask are the same objects.

    Raises:
        ValueError: a mask fits no weight, has the wrong shape or values other than 0 and 1; or a weight has a
            parametrization that is not a mask.

    >>> without_masks({"0.weight_orig": torch.ones(2), "0.weight_mask": torch.tensor([0.0, 1.0])})
    {'0.weight': tensor([0., 1.])}
    """
    originals, inside = _split(state)
    factors = {name: [state[key] for key in keys] for name, keys in inside.items()}
    for name, mask in (masks or {}).items():
        factors.setdefault(name, []).append(mask)
    lonely = sorted(name for name in factors if name not in originals and name not in state)
    if lonely:
        raise ValueError(f"there is a mask for {lonely[0]!r} without the tensor that it belongs to")
    used = {*(originals.get(name, name) for name in factors), *(key for keys in inside.values() for key in keys)}
    _check_rest(state, used)
    found = {key: tensor for key, tensor in state.items() if key not in used}
    for name, given in factors.items():
        if name in found:
            raise ValueError(f"{name!r} must be there once, got it plain and with a mask")
        found[name] = state[originals.get(name, name)]
        for mask in given:
            found[name] = _masked(name, found[name], mask)
    return found
