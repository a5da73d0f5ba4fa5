"""Teach a sparse student from a dense teacher: loss modules."""

from torch import nn

from sparsekit.distill.hidden_states import HiddenStates
from sparsekit.distill.soft_targets import SoftTargets

#: Loss name -> module.
LOSSES: dict[str, type[nn.Module]] = {"soft_targets": SoftTargets, "hidden_states": HiddenStates}

__all__ = ["LOSSES", "HiddenStates", "SoftTargets"]
