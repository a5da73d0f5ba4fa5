"""Plots of a recipe's run, one for each stage that trained, beside its report."""

from __future__ import annotations

import warnings
from pathlib import Path


def draw_stage(log: Path, folder: Path) -> str | None:
    """Draw a stage's log into a folder.

    Returns:
        Name of the plot; None, with a warning, where matplotlib is missing: a run goes on without.
    """
    try:
        from sparsekit.training.curves import draw_curves
    except ImportError as error:
        warnings.warn(
            f"{log.stem} is not drawn ({error}): pip install matplotlib, then sparsekit plot {folder}", stacklevel=2
        )
        return None
    name = f"{log.stem}.png"
    draw_curves(log, folder / name)
    return name


def draw_run(source: Path) -> list[Path]:
    """Draw a run that is finished, or still going.

    Args:
        source: folder of `compress`, for a plot of each stage in it; or one log, for a plot beside it.

    Returns:
        The plots.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a log is damaged.
    """
    from sparsekit.training.curves import draw_curves

    logs = sorted((source / "work").glob("*.jsonl")) if source.is_dir() else [source]
    if not logs:
        raise FileNotFoundError(f"{source} has no logs in work/; give the --out folder of sparsekit compress, or a log")
    plots = [(source if source.is_dir() else source.parent) / f"{log.stem}.png" for log in logs]
    for log, plot in zip(logs, plots, strict=True):
        draw_curves(log, plot)
    return plots
