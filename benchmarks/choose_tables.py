"""Table of how well times of whole models are predicted, from the JSON file that `choose_times.py` wrote."""

from __future__ import annotations

from results_tables import load, machine, source, table


def choose_times_block(result: str) -> str:
    """Errors of predictions by form and call."""
    stored = load(result)
    lines = [
        [
            one["form"],
            one["call"],
            f"{one['median_error']:.1%}",
            f"{min(one['errors']):+.1%} to {max(one['errors']):+.1%}",
        ]
        for one in stored["summary"]
    ]
    count = len(stored["summary"][0]["errors"])
    return (
        table(["form", "texts x tokens", "median error", "all errors"], lines, text_columns=2)
        + f"\n\nPredicted over measured, less 1: all-MiniLM-L6-v2, {count} random assignments of sparsities (0 to 95%) "
        f"to its linear layers in each form, one thread. {machine(stored['environment'])} {source(result)}"
    )
