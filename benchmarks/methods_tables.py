"""The pruning methods: a table from the one list that `prune`, recipes and the command line read."""

from __future__ import annotations

from results_tables import table

from sparsekit.pruning.methods import METHODS, Method


def _needs(method: Method) -> str:
    if method.while_training:
        return "training"
    wants = {"batches": method.needs_batches, "a loss": method.needs_loss}
    return " and ".join(name for name, wanted in wants.items() if wanted) or "nothing"


def methods_block() -> str:
    """Every method that prunes weights: what it does and what it needs."""
    shown = [one for one in METHODS.values() if one.score is not None or one.function is not None]
    lines = [[f"`{one.name}`", one.summary, _needs(one)] for one in shown]
    return table(["method", "what it does", "needs"], lines, text_columns=3)
