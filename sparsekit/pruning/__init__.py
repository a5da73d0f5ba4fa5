"""Prune: weights by a score or by SparseGPT, oBERT, movement; neurons and heads; at once or while training; reports."""

from sparsekit.pruning.allocation import allocate_sparsity
from sparsekit.pruning.masks.optimizer_state import drop_optimizer_state
from sparsekit.pruning.masks.parametrization import Mask, finalize
from sparsekit.pruning.masks.zeros import keep_zeros
from sparsekit.pruning.methods import METHODS, Method
from sparsekit.pruning.movement import Movement, apply_movement
from sparsekit.pruning.obert import prune_obert
from sparsekit.pruning.report import PruningReport, pruning_report
from sparsekit.pruning.schedule import Schedule
from sparsekit.pruning.sparsegpt.blockwise import prune_sparsegpt
from sparsekit.pruning.sparsegpt.solver import prune_weight
from sparsekit.pruning.structured.heads import prune_heads
from sparsekit.pruning.structured.neuron_groups import NeuronGroup
from sparsekit.pruning.structured.neurons import prune_neurons
from sparsekit.pruning.structured.widths import resize_to, shapes_of
from sparsekit.pruning.weights import prune

__all__ = [
    "METHODS",
    "Mask",
    "Method",
    "Movement",
    "NeuronGroup",
    "PruningReport",
    "Schedule",
    "allocate_sparsity",
    "apply_movement",
    "drop_optimizer_state",
    "finalize",
    "keep_zeros",
    "prune",
    "prune_heads",
    "prune_neurons",
    "prune_obert",
    "prune_sparsegpt",
    "prune_weight",
    "pruning_report",
    "resize_to",
    "shapes_of",
]
