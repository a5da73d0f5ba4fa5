"""How classes of experts store the matrices of all experts in their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparsekit.splitting.split_module import Matrix, shape_of, stack


@dataclass(frozen=True)
class Layout:
    """How a family of classes stores its experts' matrices.

    Args:
        up: parameters of the first product: gate and up, fused or separate.
        down: the parameter of the second product.
        turned: parameters whose matrices are transposed, [in_features, out_features]; None: all or none, depending on
            the module's `is_transposed`.
        activation: path of the activation function.
    """

    up: tuple[str, ...]
    down: str
    turned: tuple[str, ...] | None = None
    activation: str = "act_fn"


#: transformers classes with `use_experts_implementation` and similar ones, with and without a gate; DBRX.
LAYOUTS = (
    Layout(("gate_up_proj",), "down_proj"),
    Layout(("up_proj",), "down_proj"),
    Layout(("mlp.w1", "mlp.v1"), "mlp.w2", turned=("mlp.w2",), activation="mlp.activation_fn"),
)


def _count(module: nn.Module, parameter: str) -> int:
    """How many matrices a parameter holds; 0 if unknown."""
    shape = shape_of(module, parameter)
    count = shape[0] if len(shape) == 3 else getattr(module, "num_experts", 0)
    return count if len(shape) == 3 or (len(shape) == 2 and count and shape[0] % count == 0) else 0


def layout_of(module: nn.Module) -> Layout | None:
    """The layout of an experts module; None for other modules."""
    for layout in LAYOUTS:
        if all(_count(module, name) for name in (*layout.up, layout.down)):
            return layout
    return None


def matrices_of(module: nn.Module, layout: Layout, turned: tuple[str, ...]) -> list[Matrix]:
    """The matrices of an experts module, as layers `gate_up_proj.0` and so on."""
    found = []
    for name in (*layout.up, layout.down):
        bias = f"{name}_bias" if shape_of(module, f"{name}_bias") else None
        layer = name.rpartition(".")[2]
        found += stack(layer, name, _count(module, name), turned=name in turned, bias=bias)
    return found
