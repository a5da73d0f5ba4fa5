"""Run a hypothesis test for a while instead of a number of times, each round with a seed of its own."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_ROUND = 200
_PHASES = (Phase.explicit, Phase.generate, Phase.shrink)


def run_for(seconds: float, first_seed: int, check: Callable[[Any], None], cases: st.SearchStrategy[Any]) -> int:
    """Run `check` on drawn cases; what it raises ends the run, with the smallest case that hypothesis finds.

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
        seed(first_seed + rounds)(limits(given(cases)(lambda case: check(case))))()
        rounds += 1
    print(f"{rounds} rounds of {_ROUND} files, nothing found")
    return rounds


def arguments() -> tuple[float, int]:
    """Seconds and first seed from the command line; 60 and the time of day."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    return seconds, int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
