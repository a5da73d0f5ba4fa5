"""Teach a sparse student from a dense teacher: loss modules, layer maps, a teacher that only answers."""

from torch import nn

from sparsekit.distill.attention_maps import AttentionMaps
from sparsekit.distill.embeddings import Embeddings
from sparsekit.distill.hidden_states import HiddenStates
from sparsekit.distill.layers import LayerMap
from sparsekit.distill.soft_targets import SoftTargets
from sparsekit.distill.square_head import SquareHead
from sparsekit.distill.teacher import Teacher

#: Loss name -> module.
LOSSES: dict[str, type[nn.Module]] = {
    "soft_targets": SoftTargets,
    "square_head": SquareHead,
    "hidden_states": HiddenStates,
    "attention_maps": AttentionMaps,
    "embeddings": Embeddings,
}

__all__ = [
    "LOSSES",
    "AttentionMaps",
    "Embeddings",
    "HiddenStates",
    "LayerMap",
    "SoftTargets",
    "SquareHead",
    "Teacher",
]
