"""The stage `prune_heads`: remove attention heads."""

from __future__ import annotations

from functools import partial

from sparsekit.pruning import prune_heads
from sparsekit.recipes.stages.calibration import check_loss
from sparsekit.recipes.stages.stage import StageKind
from sparsekit.recipes.stages.units import UnitCriterion, Units, remove_units


class PruneHeads(Units):
    """Remove attention heads: the layers shrink."""

    criterion: UnitCriterion = "taylor"


STAGE = StageKind(PruneHeads, partial(remove_units, remove=prune_heads), lambda row: "removing heads", check_loss)
