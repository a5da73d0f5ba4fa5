"""Plots of a run next to its report, one for each stage that trained."""

from __future__ import annotations

import warnings
from pathlib import Path


def draw_stage(log: Path, folder: Path) -> str | None:
    """Draw a stage's log into a folder.

    Returns:
        Name of the plot; None, with a warning, if matplotlib is missing.
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
    """Plot a finished or running run.

    Args:
        source: output folder of `compress`, for a plot of each stage in it; or one log, for a plot next to it.

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
