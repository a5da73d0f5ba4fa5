"""The stage `prune_neurons`: remove hidden units of the MLPs."""

from __future__ import annotations

from functools import partial

from sparsekit.pruning import prune_neurons
from sparsekit.recipes.stages.calibration import check_loss
from sparsekit.recipes.stages.stage import StageKind
from sparsekit.recipes.stages.units import UnitCriterion, Units, remove_units


class PruneNeurons(Units):
    """Remove hidden units of the MLPs: the layers shrink."""

    criterion: UnitCriterion = "activation"


STAGE = StageKind(PruneNeurons, partial(remove_units, remove=prune_neurons), lambda row: "removing neurons", check_loss)
