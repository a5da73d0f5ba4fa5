"""Make the search of `sparsekit choose` short: tests time nothing."""

from sparsekit.choose import engines, finishing, measuring, search
from sparsekit.choose.assignments import proposals
from sparsekit.choose.times import table, whole_models


def make_short(monkeypatch, folder):
    """Few candidates, generations and rounds, torch as the only peer, a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for module, name, value in (
        (engines, "_SECONDS", 0.05),
        (table, "_SECONDS", 0.002),
        (table, "_AT_MOST", 0.004),
        (whole_models, "_SECONDS", 0.02),
        (whole_models, "_AT_MOST", 0.04),
        (proposals, "_AIMS", (1, 4)),
        (proposals, "_GENERATIONS", 2),
        (finishing, "_MOST", 2),
        (finishing, "_MOST_EPOCHS", 1.0),
        (finishing, "_BESIDE", 1.0),
        (search, "_MEASURING", 1.0),
        (measuring, "installed_engines", lambda: ["torch"]),
    ):
        monkeypatch.setattr(module, name, value)
