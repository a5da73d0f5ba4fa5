"""Cached teacher outputs: computed once, memory-mapped in every epoch.

    folder/cache.json            fingerprints of the teacher, the tokenizer and the data, number of batches
    folder/00000.safetensors     the answers to the first batch, and so on

Batches are written one by one, each atomically, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sparsekit.distillation.teacher import Teacher
from sparsekit.io.atomic_file import write_atomically, write_json

Batch: TypeAlias = Mapping[str, torch.Tensor]
#: A batch's answers: a tensor for each output, or a tuple of them where the teacher gives one for every layer.
Answers: TypeAlias = dict[str, torch.Tensor | tuple[torch.Tensor, ...]]

_FORMAT = 1
_MANIFEST = "cache.json"


def _digest(parts: Iterator[tuple[str, torch.Tensor]]) -> str:
    """Hash of names, types, shapes and bytes of tensors."""
    found = hashlib.sha256()
    for name, tensor in parts:
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _teacher_parts(teacher: Teacher) -> Iterator[tuple[str, torch.Tensor]]:
    yield from sorted(teacher.model.state_dict().items())


def _batch_parts(batches: Sequence[Batch]) -> Iterator[tuple[str, torch.Tensor]]:
    for number, batch in enumerate(batches):
        for name in sorted(batch):
            yield f"{number}.{name}", batch[name]


def _tokenizer_digest(tokenizer: Any) -> str:
    """Hash of a tokenizer's kind and vocabulary; empty where there is none."""
    if tokenizer is None:
        return ""
    text = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    return hashlib.sha256(text.encode()).hexdigest()


def named_outputs(output: Any) -> Answers:
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
    found: Answers = {}
    for name, value in output.items():
        if value is None:
            continue
        whole = (value,) if isinstance(value, torch.Tensor) else value
        if not isinstance(whole, tuple | list) or not all(isinstance(one, torch.Tensor) for one in whole):
            continue  # such as a language model's cache of keys and values
        found[name] = value if isinstance(value, torch.Tensor) else tuple(whole)
    return found


def _chosen(answers: Answers, keep: Sequence[str] | None) -> Answers:
    missing = sorted(set(keep or ()) - set(answers))
    if missing:
        raise ValueError(f"the teacher gives {', '.join(answers)}, not {', '.join(missing)}")
    return answers if keep is None else {name: answers[name] for name in keep}


def _top(answers: Answers, top_k: int) -> Answers:
    """The answers with the largest logits in place of all."""
    logits = answers.get("logits")
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"top_k is of 'logits', and the teacher gives {', '.join(answers)}")
    top = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    rest = {name: value for name, value in answers.items() if name != "logits"}
    return {**rest, "top_logits": top.values, "top_indices": top.indices.to(torch.int32)}


def ask(teacher: Teacher, batch: Batch, keep: Sequence[str] | None = None, top_k: int | None = None) -> Answers:
    """The teacher's answers to one batch, as a `TeacherCache` made with the same arguments keeps them.

    Raises:
        ValueError, TypeError: as `TeacherCache`.
    """
    answers = _chosen(named_outputs(teacher(**batch)), keep)
    return answers if top_k is None else _top(answers, top_k)


def _flat(answers: Answers, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One tensor a name; those of a tuple get numbers."""
    found = {}
    for name, value in answers.items():
        many = {name: value} if isinstance(value, torch.Tensor) else {f"{name}.{i}": one for i, one in enumerate(value)}
        for key, tensor in many.items():
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            # A copy: outputs may share memory, which files cannot.
            found[key] = tensor.detach().to("cpu", kind, copy=True).contiguous()
    return found


def _nested(flat: Mapping[str, torch.Tensor]) -> Answers:
    """Back from `_flat`."""
    found: Answers = {}
    for key in sorted(flat, key=lambda key: (key.rpartition(".")[0], len(key), key)):
        name, _, number = key.rpartition(".")
        if name and number.isdecimal():
            before = found.get(name, ())
            found[name] = (*before, flat[key])
        else:
            found[key] = flat[key]
    return found


class TeacherCache(Sequence[Answers]):
    """The teacher's answers to every batch, in order; `cache[i]` reads those of batch `i`.

    What is not there yet is asked and written when the cache is made.

    Args:
        folder: where the answers lie; made if missing.
        teacher: who answers. Its outputs are kept by name: see `named_outputs`.
        batches: keyword arguments of the teacher's calls.
        tokenizer: what made the batches; a transformers tokenizer, or anything with `get_vocab()`.
        dtype: floating outputs are rounded to it.
        keep: names of the outputs to keep; None keeps all.
        top_k: of "logits" keep only the largest so many of each row and where they stand, as "top_logits" and
            "top_indices" (int32), which `TopSoftTargets` learns from: a language model's vocabulary is large.
        on_batch: called with the number of every batch that is there.

    Raises:
        ValueError: there are no batches; the folder holds the answers of another teacher, tokenizer or data, or kept
            otherwise; the teacher does not give what is to be kept; `top_k` is below 1.
        TypeError: the teacher's outputs are not tensors.
    """

    def __init__(
        self,
        folder: Path | str,
        teacher: Teacher,
        batches: Sequence[Batch],
        *,
        tokenizer: Any = None,
        dtype: torch.dtype = torch.float16,
        keep: Sequence[str] | None = None,
        top_k: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        if not batches:
            raise ValueError("there are no batches to ask the teacher about")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.folder = Path(folder)
        self._size = len(batches)
        self._check(
            {
                "format": _FORMAT,
                "teacher": _digest(_teacher_parts(teacher)),
                "tokenizer": _tokenizer_digest(tokenizer),
                "data": _digest(_batch_parts(batches)),
                "batches": len(batches),
                "dtype": str(dtype).removeprefix("torch."),
                "keep": None if keep is None else sorted(keep),
                "top_k": top_k,
            }
        )
        for number, batch in enumerate(batches):
            if not self._path(number).exists():
                flat = _flat(ask(teacher, batch, keep, top_k), dtype)
                write_atomically(self._path(number), partial(save_file, flat))
            if on_batch is not None:
                on_batch(number)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: Any) -> Any:
        """Answers to a batch, memory-mapped.

        Raises:
            IndexError: there is no such batch.
            ValueError: the file is damaged.
        """
        if not isinstance(number, int) or not -self._size <= number < self._size:
            raise IndexError(f"the cache has the batches 0 to {self._size - 1}, got {number!r}")
        path = self._path(number % self._size)
        try:
            return _nested(load_file(path))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and make the cache again") from error

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05}.safetensors"

    def _check(self, wanted: dict[str, Any]) -> None:
        """Refuse answers to something else; a new folder is marked as belonging to this."""
        path = self.folder / _MANIFEST
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, wanted)
            return
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); delete the folder and make the cache again") from error
        other = [name for name, value in wanted.items() if found.get(name) != value]
        if other:
            raise ValueError(
                f"{self.folder} holds answers made with another {' and '.join(other)}; use another folder, or delete it"
            )
