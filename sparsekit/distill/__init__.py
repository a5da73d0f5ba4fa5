"""Teach a student from a teacher: losses, layer maps, students cut from the teacher, its answers on disk."""

from torch import nn

from sparsekit.distill.attention_maps import AttentionMaps
from sparsekit.distill.embeddings import Embeddings
from sparsekit.distill.features import Features
from sparsekit.distill.hidden_states import HiddenStates
from sparsekit.distill.layers import LayerMap
from sparsekit.distill.objective import Distillation
from sparsekit.distill.soft_targets import SoftTargets, TopSoftTargets
from sparsekit.distill.square_head import SquareHead
from sparsekit.distill.students import shallower
from sparsekit.distill.teacher import Teacher
from sparsekit.distill.teacher_cache import TeacherCache

#: Loss name -> module.
LOSSES: dict[str, type[nn.Module]] = {
    "soft_targets": SoftTargets,
    "top_soft_targets": TopSoftTargets,
    "square_head": SquareHead,
    "hidden_states": HiddenStates,
    "attention_maps": AttentionMaps,
    "embeddings": Embeddings,
}

__all__ = [
    "LOSSES",
    "AttentionMaps",
    "Distillation",
    "Embeddings",
    "Features",
    "HiddenStates",
    "LayerMap",
    "SoftTargets",
    "SquareHead",
    "Teacher",
    "TeacherCache",
    "TopSoftTargets",
    "shallower",
]
