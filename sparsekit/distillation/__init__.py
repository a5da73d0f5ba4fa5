"""Distillation: losses, layer maps, students with fewer layers, cached outputs of the teacher."""

from torch import nn

from sparsekit.distillation.attention_maps import AttentionMaps
from sparsekit.distillation.embeddings import Embeddings
from sparsekit.distillation.features import Features
from sparsekit.distillation.hidden_states import HiddenStates
from sparsekit.distillation.layer_map import LayerMap
from sparsekit.distillation.objective import Distillation
from sparsekit.distillation.soft_targets import SoftTargets, TopSoftTargets
from sparsekit.distillation.square_head import SquareHead
from sparsekit.distillation.students import drop_layers
from sparsekit.distillation.teacher import Teacher
from sparsekit.distillation.teacher_cache import TeacherCache

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
    "drop_layers",
]
