"""Cache a teacher's outputs on disk: computed once, memory-mapped in every epoch.

    folder/cache.json            fingerprints of the teacher, the tokenizer and the data, number of batches
    folder/00000.safetensors     the outputs for the first batch, and so on

Each batch is written atomically, so that a stopped run resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sparsekit.distillation.teacher import Teacher
from sparsekit.distillation.teacher_outputs import Batch, TeacherOutputs, teacher_outputs
from sparsekit.introspect.tensor_digest import batches_digest, model_digest
from sparsekit.io.atomic_file import write_atomically, write_json

_FORMAT = 1
_MANIFEST = "cache.json"


def _tokenizer_digest(tokenizer: Any) -> str:
    """Hash of a tokenizer's class and vocabulary; empty without a tokenizer."""
    if tokenizer is None:
        return ""
    text = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(outputs: TeacherOutputs, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Flatten outputs to one tensor per name; items of tuples are numbered."""
    found = {}
    for name, value in outputs.items():
        many = {name: value} if isinstance(value, torch.Tensor) else {f"{name}.{i}": one for i, one in enumerate(value)}
        for key, tensor in many.items():
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            # Copied, since outputs may share memory, which files cannot store.
            found[key] = tensor.detach().to("cpu", kind, copy=True).contiguous()
    return found


def _nested(flat: Mapping[str, torch.Tensor]) -> TeacherOutputs:
    """Inverse of `_flat`."""
    found: TeacherOutputs = {}
    for key in sorted(flat, key=lambda key: (key.rpartition(".")[0], len(key), key)):
        name, _, number = key.rpartition(".")
        if name and number.isdecimal():
            before = found.get(name, ())
            found[name] = (*before, flat[key])
        else:
            found[key] = flat[key]
    return found


class TeacherCache(Sequence[TeacherOutputs]):
    """The teacher's outputs for every batch, in order; `cache[i]` reads those of batch `i`.

    Missing outputs are computed and written when the cache is created.

    Args:
        folder: folder of the cache; created if missing.
        teacher: the teacher, whose outputs are stored by name, see `named_outputs`.
        batches: keyword arguments of the teacher's calls.
        tokenizer: the tokenizer of the batches, from transformers or with `get_vocab()`.
        dtype: type to round floating-point outputs to.
        keep: names of the outputs to store; None for all.
        top_k: store only the k largest "logits" of each row and their indices, as "top_logits" and "top_indices"
            (int32), for `TopSoftTargets`; saves space for large vocabularies.
        on_batch: called with the number of every batch that is stored.

    Raises:
        ValueError: there are no batches, the folder is from another teacher, tokenizer, data or options, the teacher
            lacks an output to keep, or `top_k` is below 1.
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
            raise ValueError("there are no batches to run the teacher on")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.folder = Path(folder)
        self._size = len(batches)
        self._check(
            {
                "format": _FORMAT,
                "teacher": model_digest(teacher.model),
                "tokenizer": _tokenizer_digest(tokenizer),
                "data": batches_digest(batches),
                "batches": len(batches),
                "dtype": str(dtype).removeprefix("torch."),
                "keep": None if keep is None else sorted(keep),
                "top_k": top_k,
            }
        )
        for number, batch in enumerate(batches):
            if not self._path(number).exists():
                flat = _flat(teacher_outputs(teacher, batch, keep, top_k), dtype)
                write_atomically(self._path(number), partial(save_file, flat))
            if on_batch is not None:
                on_batch(number)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: Any) -> Any:
        """Outputs for a batch, memory-mapped.

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
        """Refuse a folder of another teacher or data; write the manifest of a new one."""
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
                f"{self.folder} holds outputs made with another {' and '.join(other)}; use another folder, or delete it"
            )
