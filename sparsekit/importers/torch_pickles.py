"""Check the pickles of a file of `torch.save` without executing them.

torch's restricted unpickler runs no code, but it makes what it is told: `bytearray(10**10)`, or in 100 bytes a tuple
whose hash takes a day, since each half of it is one object twice. Here only the operations are followed, with sizes in
place of the values. Python's `pickletools` says what each does to the stack.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

#: What state dicts are made of, next to torch's storages and types.
_MAKERS = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch.nn.parameter Parameter",
    "torch.serialization _get_layout",
    "torch.storage TypedStorage",
    "torch.storage UntypedStorage",
}
#: Most operations, of which a tensor takes about 40, and most objects inside of all others together.
_MOST_OPERATIONS, _MOST_OBJECTS = 2**20, 2**22
#: Operations on a list or dict below what they put into it; such a thing has no hash.
_FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")
#: Pickles in a file of torch before 1.6: magic number, version, system, the object, keys of storages.
_LEGACY_PICKLES = 5


class _Item(NamedTuple):
    """Something on the stack."""

    objects: int = 1  # in it, as often as they are in there
    text: str = ""  # of a string
    texts: tuple[str, ...] = ()  # of a tuple's items


def _is_known(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    is_type = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    is_storage = module in ("torch", "torch.cuda") and attribute.endswith("Storage")
    return name in _MAKERS or is_type or is_storage


class _Pickle:
    """Follows one pickle."""

    def __init__(self) -> None:
        self._stack: list[_Item] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Item] = {}
        self._objects = 0

    def _taken(self, before: list[Any]) -> list[_Item]:
        """Take from the stack what an operation takes, without what lies below a mark that it goes back to."""
        count = len(before)
        if pickletools.markobject in before:
            mark = self._marks.pop()
            taken, count = self._stack[mark:], before.index(pickletools.markobject)
            del self._stack[mark:]
        else:
            taken = self._stack[len(self._stack) - count :]
        if len(self._stack) < count:
            raise ValueError("its pickle takes more than there is")
        del self._stack[len(self._stack) - count :]
        return taken

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do what an operation does.

        Raises:
            ValueError: it makes something that is in no state dict, or far too many things.
        """
        if opcode.name == "MARK":
            self._marks.append(len(self._stack))
        elif "PUT" in opcode.name:
            self._memo[argument] = self._stack[-1]
        elif "GET" in opcode.name:
            self._stack.append(self._memo[argument])
        else:
            self._make(opcode, argument)

    def _make(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        if opcode.name == "GLOBAL" and not _is_known(argument):
            raise ValueError(f"state dicts are made without {argument!r:.80}")
        taken = self._taken(opcode.stack_before)
        if opcode.name in ("REDUCE", "NEWOBJ") and taken[0].text.endswith("Storage"):
            raise ValueError(f"storages must be in the file, its pickle makes a new {taken[0].text!r:.80}")
        objects = 1 + sum(item.objects for item in taken)
        self._objects += objects
        if self._objects > _MOST_OBJECTS:
            raise ValueError(f"its pickle holds more than {_MOST_OBJECTS} objects, one inside of the other")
        if opcode.name == "BINPERSID" and len(taken[0].texts) > 2 and not taken[0].texts[2].isdecimal():
            raise ValueError(f"storages must be numbered, got {taken[0].texts[2]!r:.80}")
        text = argument if isinstance(argument, str) else ""
        made = _Item(1 if opcode.name in _FILLING else objects, text, tuple(item.text for item in taken))
        self._stack.extend(made for _ in opcode.stack_after)


def _check_pickle(file: IO[bytes] | bytes, operations: int = 0) -> int:
    """Follow one pickle; the operations until now, and those of this one."""
    pickle = _Pickle()
    for opcode, argument, _ in pickletools.genops(file):
        operations += 1
        if operations > _MOST_OPERATIONS:
            raise ValueError(f"its pickle has more than {_MOST_OPERATIONS} operations")
        if opcode.name not in ("PROTO", "STOP"):
            pickle.follow(opcode, argument)
    return operations


def check_pickles(path: Path) -> None:
    """Raise an error unless the pickles of a file of `torch.save` make tensors, plain containers and nothing large.

    Raises:
        ValueError: they make something else.
        KeyError, IndexError, RuntimeError: the file is damaged.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\3\4":  # as torch finds out
            _check_pickle(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))
            return
        file.seek(0)
        operations = 0
        for _ in range(_LEGACY_PICKLES):
            operations = _check_pickle(file, operations)
