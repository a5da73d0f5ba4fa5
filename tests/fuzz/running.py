"""Run a hypothesis test for a while instead of a number of times, each round with a seed of its own.

Every case must be answered in little time and memory: the files are small.
"""

from __future__ import annotations

import faulthandler
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_ROUND = 200
#: Of one case: seconds of this process, seconds until a hang is given up with a traceback, and bytes more than before.
#: A model may take 64 MiB and 256 times its files, and reading it a copy of what it takes.
_SECONDS, _HANGS, _BYTES = 2.0, 120.0, 400 * 2**20
_PHASES = (Phase.explicit, Phase.generate)  # to make a slow case smaller takes minutes


class _Files(dict[str, bytes]):
    """Files by name, shown by their sizes: to print them whole takes minutes."""

    def __repr__(self) -> str:
        return f"files of { ({name: len(data) for name, data in self.items()}) } bytes"


def _kept(files: _Files) -> Path:
    """The files of a case that failed, written to a folder."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def _status(name: str) -> int:
    """Bytes that the system says of this process; 0 where it does not."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _limited(check: Callable[[Any], None], case: _Files) -> None:
    """Run `check`, and raise AssertionError where it takes long or much memory; keep the files of what fails."""
    try:
        _checked(check, case)
    except Exception as error:
        print(f"{type(error).__name__}: {error!s:.500}; see {_kept(case)}", flush=True)
        raise


def _checked(check: Callable[[Any], None], case: _Files) -> None:
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the largest memory until now is that of now
    before, start = _status("VmRSS"), time.process_time()
    faulthandler.dump_traceback_later(_HANGS, exit=True)
    try:
        check(case)
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds, grown = time.process_time() - start, _status("VmHWM") - before
    if grown > _BYTES:
        gc.collect()
    assert seconds < _SECONDS, f"it took {seconds:.1f} s"
    assert grown < _BYTES, f"it took {grown} bytes"


def run_for(seconds: float, first_seed: int, check: Callable[[Any], None], cases: st.SearchStrategy[Any]) -> int:
    """Run `check` on drawn cases; what it raises ends the run, with the case.

    Returns:
        Number of rounds.
    """
    faulthandler.enable()
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        limits = settings(
            max_examples=_ROUND, deadline=None, database=None, phases=_PHASES, suppress_health_check=list(HealthCheck)
        )
        print(f"round {rounds}, seed {first_seed + rounds}", flush=True)
        seed(first_seed + rounds)(limits(given(cases.map(_Files))(lambda case: _limited(check, case))))()
        rounds += 1
    print(f"{rounds} rounds of {_ROUND} files, nothing found")
    return rounds


def arguments() -> tuple[float, int]:
    """Seconds and first seed from the command line; 60 and the time of day."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    return seconds, int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
