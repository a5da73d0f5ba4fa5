"""A plain training loop for any module, with resuming, early stopping and pruning while training."""

from sparsekit.training.gradual import GradualPruning
from sparsekit.training.loop import train
from sparsekit.training.movement import GradualMovement, Penalized
from sparsekit.training.precision import autocast
from sparsekit.training.processes import first_alone, join_group
from sparsekit.training.run import TrainReport
from sparsekit.training.settings import TrainSettings

__all__ = [
    "GradualMovement",
    "GradualPruning",
    "Penalized",
    "TrainReport",
    "TrainSettings",
    "autocast",
    "first_alone",
    "join_group",
    "train",
]
