"""Outputs of a model by name, and outputs of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from sparsekit.distillation.teacher import Teacher

#: Keyword arguments of a model's forward.
Batch: TypeAlias = Mapping[str, torch.Tensor]
#: Outputs for a batch, by name: a tensor, or a tuple with one tensor for each layer.
TeacherOutputs: TypeAlias = dict[str, torch.Tensor | tuple[torch.Tensor, ...]]


def named_outputs(output: Any) -> TeacherOutputs:
    """Outputs by name, from a transformers output, named tuple or mapping; a single tensor is named "output".

    Anything but tensors and tuples of tensors is ignored.

    Raises:
        TypeError: the model returns something else.
    """
    if isinstance(output, torch.Tensor):
        return {"output": output}
    if hasattr(output, "_asdict"):
        output = output._asdict()
    if not isinstance(output, Mapping):
        raise TypeError(f"a teacher must return a tensor, a mapping or a named tuple, got {type(output).__name__}")
    found: TeacherOutputs = {}
    for name, value in output.items():
        if value is None:
            continue
        whole = (value,) if isinstance(value, torch.Tensor) else value
        if not isinstance(whole, tuple | list) or not all(isinstance(one, torch.Tensor) for one in whole):
            continue  # such as a key-value cache
        found[name] = value if isinstance(value, torch.Tensor) else tuple(whole)
    return found


def _chosen(outputs: TeacherOutputs, keep: Sequence[str] | None) -> TeacherOutputs:
    missing = sorted(set(keep or ()) - set(outputs))
    if missing:
        raise ValueError(f"the teacher gives {', '.join(outputs)}, not {', '.join(missing)}")
    return outputs if keep is None else {name: outputs[name] for name in keep}


def _top(outputs: TeacherOutputs, top_k: int) -> TeacherOutputs:
    """Replace logits by the top-k logits."""
    logits = outputs.get("logits")
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"top_k is of 'logits', and the teacher gives {', '.join(outputs)}")
    top = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    rest = {name: value for name, value in outputs.items() if name != "logits"}
    return {**rest, "top_logits": top.values, "top_indices": top.indices.to(torch.int32)}


def teacher_outputs(
    teacher: Teacher, batch: Batch, keep: Sequence[str] | None = None, top_k: int | None = None
) -> TeacherOutputs:
    """The teacher's outputs for one batch, as a `TeacherCache` with the same arguments stores them.

    Raises:
        ValueError, TypeError: as `TeacherCache`.
    """
    outputs = _chosen(named_outputs(teacher(**batch)), keep)
    return outputs if top_k is None else _top(outputs, top_k)
