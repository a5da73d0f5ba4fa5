"""`Distillation`: a weighted sum of losses on named outputs of student and teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.distillation.embeddings import Embeddings
from sparsekit.distillation.layer_map import LayerMap
from sparsekit.distillation.soft_targets import SoftTargets, TopSoftTargets

#: Losses on outputs with a single tensor, and on soft targets; all others take one tensor for each layer.
_SOFT = (SoftTargets, TopSoftTargets)


def _device_of(output: torch.Tensor | Sequence[torch.Tensor]) -> torch.device:
    return output.device if isinstance(output, torch.Tensor) else output[0].device


def _moved(named: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Move tensors and tuples of tensors to a device; cached outputs and batches are on the CPU."""
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else tuple(one.to(device) for one in value)
        for name, value in named.items()
    }


class Distillation(nn.Module):
    """Weighted sum of losses, each on one output of student and teacher.

    Args:
        losses: name of an output, such as "logits", "hidden_states", "attentions" or "embeddings" -> its loss.
        weights: name -> weight; 1 where it is not given.
        layer_map: for per-layer outputs, the teacher's layer for each of the student's; None: one to one.

    Raises:
        ValueError: there are no losses, or a weight has no loss.

    >>> objective = Distillation({"logits": SoftTargets(alpha=0.0)}, {"logits": 2.0})
    >>> logits = torch.tensor([[1.0, -1.0]])
    >>> float(objective({"logits": logits}, {"logits": logits}, {}))
    0.0
    """

    def __init__(
        self,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        layer_map: LayerMap | None = None,
    ) -> None:
        super().__init__()
        weights = {} if weights is None else dict(weights)
        if not losses or set(weights) - set(losses):
            raise ValueError(
                f"losses must name outputs to follow, and weights only those, got {list(losses)} and {list(weights)}"
            )
        self.losses = nn.ModuleDict(dict(losses))
        self.weights = {name: weights.get(name, 1.0) for name in losses}
        self.layer_map = layer_map

    def forward(
        self, student: Mapping[str, Any], teacher: Mapping[str, Any], batch: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Loss of a batch.

        Args:
            student: outputs by name.
            teacher: outputs by name, as `TeacherCache` reads them; "top_logits" and "top_indices" may stand for
                "logits", with `TopSoftTargets`.
            batch: "labels" (-100: none) and "attention_mask", if a loss needs them.

        Returns:
            A scalar.

        Raises:
            ValueError: an output is missing, or shapes do not fit.
        """
        device = _device_of(student[next(iter(student))])
        teacher, batch = _moved(teacher, device), _moved(batch, device)
        terms = [self.weights[name] * self._term(name, student, teacher, batch) for name in self.losses]
        return torch.stack(terms).sum()

    def _term(
        self, name: str, student: Mapping[str, Any], teacher: Mapping[str, Any], batch: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        loss = self.losses[name]
        wanted = ("top_logits", "top_indices") if isinstance(loss, TopSoftTargets) else (name,)
        for whose, outputs, names in (("student", student, (name,)), ("teacher", teacher, wanted)):
            missing = [one for one in names if outputs.get(one) is None]
            if missing:
                raise ValueError(f"the {whose} gives no {' and no '.join(missing)}, only {', '.join(outputs)}")
        output, targets = student[name], [teacher[one] for one in wanted]
        if isinstance(loss, _SOFT):
            found: torch.Tensor = loss(output, *targets, batch.get("labels"))
        elif isinstance(loss, Embeddings):
            found = loss(output, *targets)
        else:
            pair = (output, targets[0]) if self.layer_map is None else self.layer_map(output, targets[0])
            found = loss(*pair, batch["attention_mask"])
        return found
