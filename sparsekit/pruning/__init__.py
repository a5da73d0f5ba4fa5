"""Make zeros: by magnitude, by weights and activations, one-shot with second-order correction; masks that stay."""

from sparsekit.pruning.one_shot import prune_one_shot
from sparsekit.pruning.parametrization import Mask, finalize
from sparsekit.pruning.schedule import Schedule
from sparsekit.pruning.second_order import prune_weight
from sparsekit.pruning.weights import CRITERIA, prune

__all__ = ["CRITERIA", "Mask", "Schedule", "finalize", "prune", "prune_one_shot", "prune_weight"]
