"""Put solutions of a database into a model, in place."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import torch
from torch import nn

from sparsekit.choose.assignments.levels import SPARSITIES, Assignment
from sparsekit.choose.solutions.finding import Solutions
from sparsekit.introspect.tensor_digest import model_digest
from sparsekit.pruning.layers import oriented


class Stitched:
    """A dense model whose layers are given solutions in place, and their own weights back at the end of a `with` block.

    Its parameters stay the same objects. Without the block solutions stay. Layers of modules that hold several matrices
    are there within `split_modules(model)` alone.

    Args:
        model: the dense model that the solutions are of.
        solutions: of its layers.

    Attributes:
        assignment: the level that every layer has now.

    Raises:
        ValueError: the solutions are of another model, or not all found.
    """

    def __init__(self, model: nn.Module, solutions: Solutions) -> None:
        if solutions.missing:
            raise ValueError(f"{solutions.folder} lacks {len(solutions.missing)} layers; call find_solutions first")
        if model_digest(model) != solutions.model_digest:
            raise ValueError(f"{solutions.folder} holds solutions of another model; find those of this one")
        self._solutions = solutions
        self._layers = {name: model.get_submodule(name) for name in solutions.shapes}
        self._dense: dict[str, torch.Tensor] = {
            name: layer.weight.data  # type: ignore[misc]
            for name, layer in self._layers.items()
        }
        self.assignment: Assignment = dict.fromkeys(self._layers, 0)

    def put(self, assignment: Mapping[str, int]) -> None:
        """Give every layer the weight of its level; a layer whose level stays costs nothing.

        Args:
            assignment: a level for every layer.

        Raises:
            ValueError: there is no such layer or level, or a layer has none; nothing is changed then.
        """
        if set(assignment) != set(self._layers):
            other = sorted(set(assignment) ^ set(self._layers))
            raise ValueError(f"an assignment has a level for each layer of the solutions and no other, see {other[:3]}")
        for name, level in assignment.items():
            if level not in range(len(SPARSITIES)):
                raise ValueError(f"{name}: a level must be from 0 to {len(SPARSITIES) - 1}, got {level}")
        for name, level in assignment.items():
            if level != self.assignment[name]:
                self._give(name, level)

    def _give(self, name: str, level: int) -> None:
        layer, dense = self._layers[name], self._dense[name]
        if level:
            weight = self._solutions.weight(name, level)
            layer.weight.data = oriented(layer, weight).to(dense.device, dense.dtype).contiguous()
        else:
            layer.weight.data = dense
        self.assignment[name] = level

    def restore(self) -> None:
        """Give every layer its own weight back, bit for bit."""
        self.put(dict.fromkeys(self._layers, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
