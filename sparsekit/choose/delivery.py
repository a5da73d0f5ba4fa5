"""Compress to targets: search, and leave the model to take as a folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from sparsekit.choose.points import recommended, speedup
from sparsekit.choose.request import Request
from sparsekit.choose.search import Found, search
from sparsekit.choose.telling import advice
from sparsekit.folder.layout import is_written_with_tokenizer
from sparsekit.io.atomic_folder import replaced_folder
from sparsekit.io.destination import checked_destination
from sparsekit.io.file_names import RECIPE


class TargetsNotMetError(ValueError):
    """No model that was measured keeps to the targets; the message has the nearest."""


def compress_to_targets(request: Request) -> Found:
    """Search, and write the fastest model that keeps to the targets to `request.out`.

    The search works in `request.out/work/choose`, which may be deleted afterwards. Started again with other targets, it
    takes up the models that it made.

    Args:
        request: what is to be compressed; `out` becomes the model, with its `recipe.yaml`, `report.json` and
            `report.html`, and with `choose.json` and `choose.html`, which have all that was measured.

    Returns:
        What was found; the point taken is a compressed model, also where a dense engine is faster, as `advice` says.

    Raises:
        TargetsNotMetError: no compressed model keeps to the targets; `out` has no model then, or its old one.
        FileNotFoundError, ValueError, TimeoutError, OSError: as `search`.
    """
    target = checked_destination(request.out, is_written_with_tokenizer)
    if request.model.resolve() == target:
        raise ValueError(f"{request.out} is the model, which the compressed model would replace; choose another folder")
    searched = request.out / "work" / "choose"
    found = search(replace(request, out=searched))
    compressed = [point for point in found.points if point.recipe is not None]
    chosen, meets = recommended(compressed, found.dense, request.targets)
    named = replace(chosen, recipe=RECIPE)  # as the folder has it
    told = advice(found.points, found.dense, named, meets, request.targets, found.score, nothing="No compressed model")
    told += _dense_wins(found)
    if not meets:
        raise TargetsNotMetError(f"{told} What was measured is in {searched / 'report.html'}")
    _deliver(searched, searched / "models" / Path(chosen.recipe or "").stem, request.out)
    return replace(found, chosen=chosen, meets_targets=meets, advice=told)


def _dense_wins(found: Found) -> str:
    """That a dense engine is recommended, in a sentence; empty if none is."""
    if found.chosen.recipe is not None or not found.meets_targets:
        return ""
    faster = f"{speedup(found.chosen, found.dense):.2f} times as fast as {found.dense.name}"
    return f" The dense model in {found.chosen.name} meets the targets and is the fastest that does: {faster}."


def _deliver(searched: Path, model: Path, out: Path) -> None:
    """Copy a model, and what the search measured, in place of what is there."""
    files = {path.name: path for path in model.iterdir() if path.is_file()}
    files |= {"choose.json": searched / "choose.json", "choose.html": searched / "report.html"}
    with replaced_folder(out, lambda name: name in files or is_written_with_tokenizer(name)) as new:
        for name, path in files.items():
            shutil.copy2(path, new / name)
