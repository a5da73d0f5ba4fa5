"""`verify`: check a folder's checksums, its sparse layers against float64, and its outputs against stored ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from sparsekit.checkpoint.loading import load
from sparsekit.checkpoint.verification.outputs import check_outputs, write_outputs
from sparsekit.folder.layer_checks import Check, LayerChecks, check_layers
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.atomic_file import printable
from sparsekit.io.file_names import CONFIG, MANIFEST
from sparsekit.io.hub_cache import local_folder
from sparsekit.wording import counted


@dataclass(frozen=True)
class VerificationReport:
    """Result of `verify`; `print` shows it as a table."""

    folder: str
    arrays: int  # number of arrays whose checksums were compared
    embeddings: Mapping[str, tuple[int, ...]]  # shape [rows, features] of those in int8, by name
    layers: Mapping[str, Check]
    stored: Mapping[str, Check]  # checks of the same layers on the machine that saved the folder
    outputs: Mapping[str, Check]
    note: str = ""  # why outputs were not compared

    @property
    def passed(self) -> bool:
        """Whether all errors are within their tolerances."""
        return all(check.passed for check in (*self.layers.values(), *self.outputs.values()))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        found: dict[str, Any] = {"folder": self.folder, "arrays": self.arrays, "note": self.note}
        found["embeddings"] = {name: list(shape) for name, shape in self.embeddings.items()}
        for part in ("layers", "stored", "outputs"):
            found[part] = {name: vars(check) for name, check in getattr(self, part).items()}
        return {**found, "passed": self.passed}

    def __str__(self) -> str:
        rows = [(printable(name), check, self.stored.get(name)) for name, check in self.layers.items()]
        rows += [(f"output {printable(name)}", check, None) for name, check in self.outputs.items()]
        width = max((len(name) for name, *_ in rows), default=5)
        lines = [f"{'layer':{width}}  error  relative  when saved  tolerance"] if rows else []
        for name, check, before in rows:
            saved = "" if before is None else f"{before.relative:.0e}"
            verdict = "" if check.passed else "  too large"
            errors = f"{check.absolute:5.0e}  {check.relative:8.0e}"
            lines.append(f"{name:{width}}  {errors}  {saved:>10}  {check.tolerance:9.0e}{verdict}")
        wrong = sum(not check.passed for _, check, _ in rows)
        verdict = f"{wrong} of {len(rows)} errors are too large" if wrong else "all errors are within their tolerances"
        verdict = verdict if rows else "there are no sparse layers to check"
        lines.append(f"checksums of {counted(self.arrays, 'array')} are right, {verdict}")
        for name, shape in self.embeddings.items():
            lines.append(f"codes and scales of embeddings {printable(name)} ({' x '.join(map(str, shape))}) are right")
        return "\n".join([*lines, self.note] if self.note else lines)


def write_verification(folder: Path, model: nn.Module, inputs: Mapping[str, Any] | None) -> None:
    """Fill in `verification` in `sparsekit.json`; this reads the folder back, which proves that it is readable.

    Raises:
        TypeError, ValueError: as `write_outputs`.
    """
    stored = ModelFolder(folder)
    outputs = None if inputs is None else write_outputs(model, inputs, folder)
    verification = {**check_layers(stored).to_json(), "outputs": outputs}
    manifest = replace(stored.manifest, verification=verification)
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n")


def _checks(stored: ModelFolder) -> tuple[LayerChecks, LayerChecks | None]:
    """Errors of the layers on this machine, and on the one that saved the folder, if recorded."""
    value = stored.manifest.verification
    if value is None:
        return check_layers(stored), None
    if set(value) != {"seed", "tokens", "layers", "outputs"}:
        raise ValueError(f"verification must have the keys seed, tokens, layers and outputs, got {sorted(value)}")
    names = {name for name, layer in stored.manifest.layers.items() if layer.in_model == "sparse"}
    before = LayerChecks.from_json(value, names)
    now = check_layers(stored, before.seed, before.tokens)
    layers = {name: replace(check, tolerance=before.layers[name].tolerance) for name, check in now.layers.items()}
    return replace(now, layers=layers), before


def verify(folder: Path | str, *, model: nn.Module | None = None) -> VerificationReport:
    """Check a model folder, and the results that it gives on this machine.

    Structure, checksums and embeddings in int8 are checked as in `load`. Every sparse layer multiplies random tokens
    and is compared with its own stored weight in float64. If the folder has inputs (`verify_inputs` of `save`), the
    model's outputs are compared with the stored ones.

    Args:
        folder: a folder that `save` wrote, or the name of a model in the local hub cache.
        model: for models outside transformers, as in `load`; without one, outputs are not compared.

    Returns:
        Largest errors and tolerances; `passed` says whether all are within tolerance.

    Raises:
        FileNotFoundError: there is no such folder or model.
        ValueError: files are missing, damaged or malformed; the message says which and how.
    """
    stored = ModelFolder(local_folder(folder))
    for name in stored.manifest.arrays.keys() - stored.manifest.table_arrays():
        stored.raw(name)
    tables = {name: stored.table(name)[0].shape for name in stored.manifest.embeddings}
    try:
        now, before = _checks(stored)
    except ValueError as error:
        raise ValueError(f"{stored.path / MANIFEST}: {error}") from error
    entry = (stored.manifest.verification or {}).get("outputs")
    outputs, note = {}, ""
    if entry is None:
        note = "outputs were not compared: the folder was saved without verify_inputs"
    elif model is None and not (stored.path / CONFIG).exists():
        note = "outputs were not compared: they need the model; call sparsekit.verify(folder, model=...)"
    else:
        outputs = check_outputs(load(stored.path, model=model), stored.path, entry)
    earlier = {} if before is None else before.layers
    return VerificationReport(str(folder), len(stored.manifest.arrays), tables, now.layers, earlier, outputs, note)
