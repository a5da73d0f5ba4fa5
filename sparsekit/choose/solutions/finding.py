"""The database that a compression is assembled from: a SparseGPT solution of every layer at every level, on disk.

    folder/solutions.json       which model, calibration batches and settings they are of; the layers
    folder/00000.safetensors    solutions of the first layer (see `solution_file.py`), and so on

Solutions are for the inputs that a layer has in the dense model, so that any combination can be put together, as in
SPDY (Frantar and Alistarh, arXiv 2201.11096). Layers are written one by one, each atomically: a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.choose.assignments.levels import SPARSITIES
from sparsekit.choose.solutions.solution_file import SolutionFile, rounded, write_solutions
from sparsekit.fidelity import evaluating
from sparsekit.introspect.module_paths import lies_within, name_within
from sparsekit.introspect.tensor_digest import batches_digest, model_digest
from sparsekit.introspect.transformer_blocks import linear_layers_outside
from sparsekit.io.atomic_file import write_json
from sparsekit.io.untrusted import read_object
from sparsekit.progress import Progress
from sparsekit.pruning.calibration.batches import Batch
from sparsekit.pruning.layers import select_prunable, weight_of
from sparsekit.pruning.masks.from_scores import check_structure, structure_sparsity
from sparsekit.pruning.sparsegpt.blockwise import blocks_holding
from sparsekit.pruning.sparsegpt.moments import gather_hessians
from sparsekit.pruning.sparsegpt.samples import layers_by_input, samples_of
from sparsekit.pruning.sparsegpt.solver import inverse_factor, prune_by_factor
from sparsekit.pruning.split_model import on_split_modules

_FORMAT = 1
_MANIFEST = "solutions.json"


class Solutions:
    """Solutions of layers at all levels, as `find_solutions` gives them.

    Attributes:
        folder: where they lie.
        model_digest: of the dense model.
        mask_structure: of their zeros.
        shapes: layer name -> shape of its weight, [out_features, in_features].
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.model_digest: str = manifest["model"]
        self.mask_structure: str = manifest["mask_structure"]
        self.shapes: dict[str, tuple[int, int]] = {name: (rows, columns) for name, rows, columns in manifest["layers"]}
        self._identity = json.dumps(manifest, sort_keys=True)
        self._files: dict[str, SolutionFile] = {}
        for name in self.shapes:
            if self._path(name).exists():
                self._open(name)

    def _path(self, layer: str) -> Path:
        return self.folder / f"{list(self.shapes).index(layer):05}.safetensors"

    def _identity_of(self, layer: str) -> str:
        return f"{self._identity} {layer}"

    def _open(self, layer: str) -> None:
        self._files[layer] = SolutionFile(self._path(layer), self._identity_of(layer), self.shapes[layer])

    def add(self, layer: str, weight: torch.Tensor, found: Sequence[torch.Tensor], hessian: torch.Tensor) -> None:
        """Write a layer's solutions, with the errors that they have as they are stored.

        Args:
            layer: its name.
            weight: its dense weight, float32, shape [out_features, in_features].
            found: its solutions at the levels 1, 2, ...
            hessian: `X X^T` of its inputs.

        Raises:
            OSError: the file cannot be written.
            ValueError: a solution is beyond float16.
        """
        stored = [rounded(layer, solution) for solution in found]
        kept = [torch.from_numpy(solution.to_dense()).to(weight.device) for solution in stored]
        errors = [0.0, *(relative_error(weight, solution, hessian) for solution in kept)]
        write_solutions(self._path(layer), self._identity_of(layer), stored, errors)
        self._open(layer)

    @property
    def missing(self) -> list[str]:
        """Layers whose solutions are not found yet."""
        return [name for name in self.shapes if name not in self._files]

    @property
    def nbytes(self) -> int:
        """Bytes of all files of weights."""
        return sum(file.nbytes for file in self._files.values())

    def errors(self) -> dict[str, tuple[float, ...]]:
        """Layer name -> its relative error `|| (W - W') X ||^2 / || W X ||^2` at each level, 0 at level 0."""
        return {name: self._files[name].errors for name in self.shapes}

    def weight(self, layer: str, level: int) -> torch.Tensor:
        """A layer's solution at a level above 0, float32, shape [out_features, in_features].

        Raises:
            ValueError: its file was damaged since it was opened.
        """
        return self._files[layer].weight(level)


def relative_error(weight: torch.Tensor, solution: torch.Tensor, hessian: torch.Tensor) -> float:
    """`|| (W - W') X ||^2 / || W X ||^2` of a solution W', 0 where the outputs are all zero.

    Args:
        weight: W, float32, shape [out_features, in_features].
        solution: W', the same shape.
        hessian: `X X^T`, float32, shape [in_features, in_features].
    """
    change, whole = (((one @ hessian) * one).sum(dtype=torch.float64) for one in (weight - solution, weight))
    return max(0.0, (change / whole).item()) if whole > 0 else 0.0


def _layers_of(
    model: nn.Module, targets: Iterable[str], ignore: Iterable[str] | None, mask_structure: str
) -> dict[str, nn.Module]:
    layers = select_prunable(model, targets, linear_layers_outside(model) if ignore is None else ignore)
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(f"{name}.weight is masked or otherwise parametrized; give the dense model")
        check_structure(name, weight_of(layer), mask_structure)
    return layers


def _claim(folder: Path, wanted: dict[str, Any]) -> None:
    """Make the folder's manifest.

    Raises:
        ValueError: the folder holds other solutions.
    """
    path = folder / _MANIFEST
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
        return
    found = read_object(path)
    other = [name.replace("_", " ") for name, value in wanted.items() if found.get(name) != value]
    if other:
        raise ValueError(f"{folder} holds solutions of another {' and '.join(other)}; use another folder, or delete it")


def _solve(
    model: nn.Module,
    blocks: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    solutions: Solutions,
    damping: float,
    on_layer: Callable[[str], None],
) -> None:
    """Find what is missing, one transformer block after the other, so that few Hessians are in memory at a time."""
    missing = solutions.missing
    samples = samples_of(model, list(blocks.values()), batches)
    for number, (block_name, block) in enumerate(blocks.items()):
        names = {name_within(block_name, name): name for name in missing if lies_within(block_name, name)}
        inside = {name: block.get_submodule(name) for name in names}
        groups = layers_by_input(block, number, inside, samples[0]) if names else []
        hessians = gather_hessians(block, number, [group[0] for group in groups], samples)
        for group in groups:
            hessian = hessians.pop(group[0])
            factor = inverse_factor(hessian, damping)
            for name in group:
                weight = weight_of(inside[name]).float()
                found = [
                    prune_by_factor(weight, factor, sparsity, None, solutions.mask_structure)[0]
                    for sparsity in SPARSITIES[1:]
                ]
                solutions.add(names[name], weight, found, hessian)
                on_layer(names[name])


@on_split_modules
def find_solutions(
    model: nn.Module,
    folder: Path | str,
    batches: Sequence[Batch],
    *,
    mask_structure: str = "unstructured",
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] | None = None,
    damping: float = 0.01,
    on_layer: Callable[[str], None] | None = None,
) -> Solutions:
    """Solutions of a dense model's layers at all levels of `SPARSITIES`, from a folder; what it lacks is found first.

    The model stays as it is. One pass over the batches gives every layer's Hessian, which its levels share, and so do
    layers that read the same input.

    Args:
        model: as for `prune_sparsegpt`, without masks.
        folder: where the solutions are kept; made if missing.
        batches: keyword arguments of the model's forward; with an "attention_mask", padding does not count.
        mask_structure: "unstructured" or "RxC", as in `prune`.
        targets: layers to solve, as in `prune`.
        ignore: layers to leave out, in the same notation; None: those outside the transformer blocks.
        damping: as for `prune_sparsegpt`.
        on_layer: called with the name of every layer whose solutions were found now.

    Raises:
        TypeError, ValueError: as `prune_sparsegpt`; also when a layer has a mask, the structure is "N:M", the folder is
            damaged or holds solutions of another model, other batches or settings, or a solution is beyond float16.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    if not batches:
        raise ValueError("calibration needs at least one batch, got none")
    if structure_sparsity(mask_structure) is not None:
        raise ValueError(f"mask_structure {mask_structure!r} has one sparsity; expected 'unstructured' or 'RxC'")
    layers = _layers_of(model, targets, ignore, mask_structure)
    blocks = blocks_holding(model, layers)
    manifest = {
        "format": _FORMAT,
        "model": model_digest(model),
        "batches": batches_digest(batches),
        "mask_structure": mask_structure,
        "sparsities": list(SPARSITIES),
        "damping": damping,
        "layers": [[name, *weight_of(layer).shape] for name, layer in layers.items()],
    }
    _claim(folder, manifest)
    solutions = Solutions(folder, manifest)
    left = len(solutions.missing)
    if left:
        done = len(layers) - left
        with (
            Progress[str](title="solve", unit="layers", total=len(layers), initial=done) as shown,
            evaluating(model),
        ):

            def found(name: str) -> None:
                shown.update()
                if on_layer is not None:
                    on_layer(name)

            _solve(model, blocks, batches, solutions, damping, found)
    return solutions
