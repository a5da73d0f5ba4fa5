"""Progress bars: on a terminal of 80 columns, without one, and after they were closed."""

import os
import pty
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from sparsekit import progress
from sparsekit.progress import Progress, close_all, tell
from sparsekit.pruning import prune, prune_sparsegpt

pytest.importorskip("tqdm")

_BARS = """
import sys
from sparsekit import progress
progress._DELAY = progress._INTERVAL = 0
with progress.Progress(title="12-distill", unit="steps", total=123456) as bar:
    for step in range(0, 123456, 30864):
        bar.say("loss 0.00123, 95% zeros")
        bar.update(30864)
        progress.tell("a line between")
for _ in progress.Progress(range(3), title="12-prune, what layers can spare", unit="batches"):
    pass
left = progress.Progress(title="left", unit="steps", total=2)
left.update()
progress.close_all()
"""


def on_a_terminal(script, columns=80):
    """What a script writes to a terminal."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    running = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    try:
        while found := os.read(ours, 65536):
            written += found
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert running.wait() == 0, written
    return written.decode()


def screen(written):
    """Lines that stay on the screen."""
    lines = [""]
    column = 0
    for part in re.split(r"(\r|\n)", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            lines.append("")
            column = 0
        else:
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def test_bars_fit_80_columns_and_leave_nothing_behind():
    written = on_a_terminal(_BARS)
    drawn = [part for part in re.split(r"[\r\n]+", written) if "|" in part]
    assert len(drawn) >= 6
    assert all(len(part) <= 80 for part in drawn), drawn
    assert any("12-distill" in part and part.rstrip().endswith("loss 0.00123, 95% zeros") for part in drawn)
    assert any("12-prune, what layers can spare" in part and "left" in part for part in drawn)
    assert set(screen(written)) == {"a line between"}


def test_bars_are_lines_where_there_is_no_terminal(capsys, monkeypatch):
    for _ in Progress(range(3), title="count", unit="numbers"):
        pass
    assert capsys.readouterr().err == "", "nothing before a minute has passed"
    monkeypatch.setattr(progress, "_MINUTE", 0.0)
    with Progress(title="2-distill", unit="steps", total=4) as bar:
        bar.say("loss 0.5")
        bar.update(2)
        tell("said between")
    lines = capsys.readouterr().err.splitlines()
    assert "\r" not in "".join(lines)
    assert re.fullmatch(r"2-distill  50%, 2/4 steps, \S+ left, loss 0\.5", lines[-2]), lines
    assert lines[-1] == "said between"


def test_bars_are_off_where_they_are_hidden_or_tqdm_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_MINUTE", 0.0)
    with Progress(title="hidden", unit="steps", total=4, hidden=True) as bar:
        bar.update()
    monkeypatch.setattr(progress, "_kinds", lambda: None)
    with Progress(title="missing", unit="steps", total=4) as bar:
        bar.say("loss")
        bar.update()
    assert list(Progress([1, 2], title="missing", unit="numbers")) == [1, 2]
    close_all()
    assert capsys.readouterr().err == ""


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8))])

    def forward(self, input):
        for block in self.blocks:
            input = block(input)
        return input


@pytest.mark.parametrize("criterion", ["wanda", "taylor", "sparsegpt"])
def test_pruning_from_python_shows_a_bar(capsys, monkeypatch, criterion):
    monkeypatch.setattr(progress, "_MINUTE", 0.0)
    batches = [{"input": torch.randn(4, 8)} for _ in range(3)]
    if criterion == "sparsegpt":
        prune_sparsegpt(Blocks(), 0.5, batches)
    elif criterion == "wanda":
        prune(Blocks(), 0.5, criterion=criterion, batches=batches)
    else:
        prune(Blocks(), 0.5, criterion=criterion, batches=batches, loss=lambda model, batch: model(**batch).sum())
    told = capsys.readouterr().err
    assert ("prune 100%, 2/2 layers" if criterion == "sparsegpt" else "calibrate 100%, 3/3 batches") in told
