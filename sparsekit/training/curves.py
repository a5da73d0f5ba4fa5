"""Plot a run from its log: loss, learning rate, sparsity and score against steps."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsekit.io.atomic_file import write_atomically

#: Log entry -> axis label, from top to bottom.
_PANELS = {"loss": "loss", "learning_rate": "learning rate", "sparsity": "sparsity", "score": "score"}


def read_log(log: Path) -> list[dict[str, float]]:
    """Read a log of `train`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is empty, or not a log of training.
    """
    if not log.is_file():
        raise FileNotFoundError(f"{log} does not exist; give a folder of sparsekit compress, or a log of train()")
    lines_and_a_torn_one = log.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines_and_a_torn_one if line.endswith(b"\n")]
    try:
        lines: list[Any] = [json.loads(line) for line in whole]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{log} is no log of train(): {error}") from error
    if not lines or not all(isinstance(line, dict) and "step" in line for line in lines):
        raise ValueError(f"{log} is no log of train(): every line must be JSON with a step, and there must be one")
    return lines


def _mean_around(values: list[float]) -> np.ndarray[Any, Any]:
    """Moving average over a fiftieth of all values, shorter at both ends."""
    window = np.ones(max(1, len(values) // 50))
    sums, counts = (np.convolve(one, window, mode="same") for one in (values, np.ones(len(values))))
    return np.asarray(sums / counts)


def _draw(axes: Axes, name: str, steps: list[float], values: list[float]) -> None:
    if name == "loss":
        axes.plot(steps, values, linewidth=0.6, alpha=0.4)
        axes.plot(steps, _mean_around(values), color="C0")
    else:
        axes.plot(steps, values, color="C0", marker="o" if name == "score" else None, markersize=3)
    axes.set_ylabel(_PANELS[name])
    axes.grid(alpha=0.3)


def draw_curves(log: Path, picture: Path) -> None:
    """Plot a log, with a panel for each nonempty entry.

    Args:
        log: log file of `train`.
        picture: the PNG file.

    Raises:
        FileNotFoundError, ValueError: as `read_log`.
    """
    lines = read_log(log)
    found = {name: [(line["step"], line[name]) for line in lines if name in line] for name in _PANELS}
    if not any(value for _, value in found["sparsity"]):
        del found["sparsity"]
    shown = {name: points for name, points in found.items() if points}
    figure = Figure(figsize=(8, 1 + 1.8 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axes, (name, points) in zip(panels, shown.items(), strict=True):
        _draw(axes, name, [step for step, _ in points], [value for _, value in points])
    panels[0].set_title(log.stem)
    panels[-1].set_xlabel("step")
    write_atomically(picture, partial(figure.savefig, dpi=120))
