"""Candidates: compressed models that a recipe makes, as they are before anything was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sparsekit.choose.assignments.levels import SPARSITIES, Assignment, Form
from sparsekit.recipes import Recipe, make_recipe

#: A stage of a recipe, as YAML has it.
Stage: TypeAlias = Mapping[str, Any] | str

#: Texts that SparseGPT calibrates on.
_SAMPLES = 512
#: How a student of each task learns best, of what `docs/experiments/quality` compares.
_DISTILL: dict[str, dict[str, Any]] = {
    "classification": {"learning_rate": 5.0e-4},
    "embedding": {"learning_rate": 1.0e-3, "hidden_weight": 0.0, "similarity_weight": 0.3},
}


@dataclass(frozen=True)
class Candidate:
    """A model to make.

    Attributes:
        name: what tables call it.
        form: of its weights.
        shrinking: the stages that make it smaller, before it learns.
        predicted: its speed-up over the dense model in the engine, as predicted; None if it was not.
    """

    name: str
    form: Form
    shrinking: tuple[Stage, ...]
    predicted: float | None = None

    def recipe(self, task: str, data: Mapping[str, Any], epochs: float, seed: int) -> Recipe:
        """The recipe that makes it.

        Args:
            task: of the recipe.
            data: settings of the recipe's data.
            epochs: to distill; 0 for none.
            seed: of the recipe.
        """
        learning = [{"distill": {**_DISTILL[task], "epochs": epochs}}] if epochs else []
        converting = {"dtype": self.form.dtype, "embeddings": self.form.dtype, "min_sparsity": 0.0}
        stages = [*self.shrinking, *learning, {"convert": converting}]
        return make_recipe({"task": task, "seed": seed, "data": dict(data), "stages": stages})


def sparse(assignment: Assignment, form: Form, predicted: float) -> Candidate:
    """The candidate whose layers have these levels."""
    sparsities = {layer: SPARSITIES[level] for layer, level in assignment.items()}
    pruning = {"sparsities": sparsities, "mask_structure": form.mask_structure, "samples": _SAMPLES}
    return Candidate(f"{form}, {predicted:.2f}x", form, ({"prune": pruning},), predicted)


def shallow(layers: int) -> Candidate:
    """The candidate with this many transformer blocks, dense int8."""
    return Candidate(f"int8, {layers} layers", Form("int8", "unstructured"), ({"drop_layers": {"layers": layers}},))


def dense_int8() -> Candidate:
    """The dense model in int8, without training."""
    return Candidate("int8, dense", Form("int8", "unstructured"), ())


def spaced(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """At most `count` of the candidates, evenly spaced, the first and the last among them."""
    if count >= len(candidates):
        return list(candidates)
    if count < 2:
        return list(candidates[:count])
    return [candidates[round(number * (len(candidates) - 1) / (count - 1))] for number in range(count)]
