"""Make zeros: magnitude pruning, second-order one-shot pruning, masks that stay through training."""

from sparsekit.pruning.one_shot import prune_one_shot
from sparsekit.pruning.parametrization import Mask, finalize
from sparsekit.pruning.second_order import prune_weight
from sparsekit.pruning.weights import CRITERIA, prune

__all__ = ["CRITERIA", "Mask", "finalize", "prune", "prune_one_shot", "prune_weight"]
