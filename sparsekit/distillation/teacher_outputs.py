"""A model's outputs by name, and those of a teacher that a student learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from sparsekit.distillation.teacher import Teacher

#: Keyword arguments of a model's forward.
Batch: TypeAlias = Mapping[str, torch.Tensor]
#: Outputs for a batch by name: a tensor, or a tuple of them where the teacher returns one for every layer.
TeacherOutputs: TypeAlias = dict[str, torch.Tensor | tuple[torch.Tensor, ...]]


def named_outputs(output: Any) -> TeacherOutputs:
    """What a model returns, by name: of a transformers output, a named tuple or a mapping; or one tensor as "output".

    What is no tensor and no tuple of tensors is passed over.

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
            continue  # such as a language model's cache of keys and values
        found[name] = value if isinstance(value, torch.Tensor) else tuple(whole)
    return found


def _chosen(outputs: TeacherOutputs, keep: Sequence[str] | None) -> TeacherOutputs:
    missing = sorted(set(keep or ()) - set(outputs))
    if missing:
        raise ValueError(f"the teacher gives {', '.join(outputs)}, not {', '.join(missing)}")
    return outputs if keep is None else {name: outputs[name] for name in keep}


def _top(outputs: TeacherOutputs, top_k: int) -> TeacherOutputs:
    """The outputs with the top-k logits in place of all."""
    logits = outputs.get("logits")
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"top_k is of 'logits', and the teacher gives {', '.join(outputs)}")
    top = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    rest = {name: value for name, value in outputs.items() if name != "logits"}
    return {**rest, "top_logits": top.values, "top_indices": top.indices.to(torch.int32)}


def teacher_outputs(
    teacher: Teacher, batch: Batch, keep: Sequence[str] | None = None, top_k: int | None = None
) -> TeacherOutputs:
    """The teacher's outputs for one batch, as a `TeacherCache` made with the same arguments keeps them.

    Raises:
        ValueError, TypeError: as `TeacherCache`.
    """
    outputs = _chosen(named_outputs(teacher(**batch)), keep)
    return outputs if top_k is None else _top(outputs, top_k)
