"""Report the sparsity of a model's layers, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.pruning.layers import left_out, weight_of
from sparsekit.pruning.split_model import on_split_modules


@dataclass(frozen=True)
class LayerZeros:
    """The zeros of one layer's weight."""

    name: str
    shape: tuple[int, int]  # out_features, in_features
    nnz: int
    empty_rows: int  # outputs without weights
    empty_columns: int  # inputs that no weight reads
    too_sparse: bool  # above the limit, or with outputs without weights

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1.0 - self.nnz / (self.shape[0] * self.shape[1])


@dataclass(frozen=True)
class PruningReport:
    """The zeros of a model's linear layers; `print` shows them as a table."""

    layers: tuple[LayerZeros, ...]
    limit: float  # sparsity above which a layer counts as too sparse
    left_out: Mapping[str, str] = field(default_factory=dict)  # layers that are not pruned unless named: name -> why

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all layers."""
        return 1.0 - sum(layer.nnz for layer in self.layers) / sum(_size(layer) for layer in self.layers)

    @property
    def too_sparse(self) -> tuple[str, ...]:
        """Names of layers whose sparsity is above the limit, or that have outputs without weights."""
        return tuple(layer.name for layer in self.layers if layer.too_sparse)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "layers": [{**asdict(layer), "sparsity": layer.sparsity} for layer in self.layers],
            "sparsity": self.sparsity,
            "limit": self.limit,
            "too_sparse": list(self.too_sparse),
            "left_out": dict(self.left_out),
        }

    def __str__(self) -> str:
        width = max(5, *(len(layer.name) for layer in self.layers))
        lines = [f"{'layer':{width}}  {'out x in':>12}  sparsity  empty rows  empty columns"]
        for layer in self.layers:
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            lines.append(
                f"{layer.name:{width}}  {shape:>12}  {layer.sparsity:8.1%}  {layer.empty_rows:10}  "
                f"{layer.empty_columns:13}  {'too sparse' if layer.too_sparse else ''}".rstrip()
            )
        count = f"{len(self.too_sparse)} of {len(self.layers)} layers too sparse"
        lines.append(f"{self.sparsity:.1%} of {sum(_size(layer) for layer in self.layers):,} weights pruned, {count}")
        lines += [f"left out: {name} {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)


def _size(layer: LayerZeros) -> int:
    return layer.shape[0] * layer.shape[1]


def _count_zeros(model: nn.Module, limit: float) -> Iterator[LayerZeros]:
    for name, module in model.named_modules():
        if not is_dense_linear(module):
            continue
        if weight_of(module).is_meta:
            raise ValueError(f"{name}.weight has no values yet (it is on the meta device); load the model first")
        kept = weight_of(module) != 0
        if not kept.numel():
            continue
        out_features, in_features = kept.shape
        nnz = int(kept.sum())
        empty_rows = out_features - int(kept.any(1).sum())
        empty_columns = in_features - int(kept.any(0).sum())
        too_sparse = empty_rows > 0 or 1.0 - nnz / kept.numel() > limit
        yield LayerZeros(name, (out_features, in_features), nnz, empty_rows, empty_columns, too_sparse)


@on_split_modules
def pruning_report(model: nn.Module, *, limit: float = 0.97) -> PruningReport:
    """Count the zeros of every linear layer, masked or finalized, whatever structure they were pruned in.

    Args:
        model: any PyTorch model, before `convert`.
        limit: sparsity above which a layer counts as too sparse, in [0, 1]; one with outputs without weights
            counts too.

    Returns:
        One entry for every `nn.Linear` and every `Conv1D` of transformers, and for each matrix of
        `nn.MultiheadAttention` and of the experts of mixtures. Those that share their weight with an embedding, which
        pruning leaves out, are also in `left_out` with the reason.

    Raises:
        ValueError: the limit is out of range, or the model has no such layer, or one without values.

    >>> layer = nn.Linear(4, 3)
    >>> _ = layer.weight.data.fill_(1.0)[2].zero_()
    >>> print(pruning_report(nn.Sequential(layer)))
    layer      out x in  sparsity  empty rows  empty columns
    0             3 x 4     33.3%           1              0  too sparse
    33.3% of 12 weights pruned, 1 of 1 layers too sparse
    """
    if not 0.0 <= limit <= 1.0:
        raise ValueError(f"limit must be in [0, 1], got {limit}; 0.97 flags layers with more than 97% zeros")
    layers = tuple(_count_zeros(model, limit))
    if not layers:
        raise ValueError("the model has no torch.nn.Linear and no transformers Conv1D; report on it before convert()")
    return PruningReport(layers, limit, left_out(model))
