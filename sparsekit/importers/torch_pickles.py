"""Check the pickles in a `torch.save` file without executing them.

torch's restricted unpickler runs no code, but it builds any object it is told to: `bytearray(10**10)`, or in 100 bytes
a nested tuple whose halves are the same object, which takes a day to hash. Here the operations are only simulated, with
sizes in place of values; Python's `pickletools` describes what each does to the stack.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

#: Callables that state dicts are built from, besides torch's storages and dtypes.
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
#: Largest number of operations (a tensor takes about 40), and of objects, counting nested ones each time.
_MOST_OPERATIONS, _MOST_OBJECTS = 2**20, 2**22
#: Operations that fill a list or dict; these are unhashable, so their contents need not be counted.
_FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")
#: Pickles in a file written before torch 1.6: magic number, version, system, the object, keys of storages.
_LEGACY_PICKLES = 5


class _Item(NamedTuple):
    """Something on the stack."""

    objects: int = 1  # number of nested objects, counted once per occurrence
    text: str = ""  # value of a string
    texts: tuple[str, ...] = ()  # texts of a tuple's items


def _is_known(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    is_type = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    is_storage = module in ("torch", "torch.cuda") and attribute.endswith("Storage")
    return name in _MAKERS or is_type or is_storage


class _Pickle:
    """Simulates one pickle."""

    def __init__(self) -> None:
        self._stack: list[_Item] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Item] = {}
        self._objects = 0

    def _taken(self, before: list[Any]) -> list[_Item]:
        """Pop an operation's arguments from the stack, back to the last mark if it uses one."""
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
        """Simulate one operation.

        Raises:
            ValueError: it builds something that does not belong in a state dict, or far too many objects.
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
    """Simulate one pickle; return `operations` plus the number of its operations."""
    pickle = _Pickle()
    for opcode, argument, _ in pickletools.genops(file):
        operations += 1
        if operations > _MOST_OPERATIONS:
            raise ValueError(f"its pickle has more than {_MOST_OPERATIONS} operations")
        if opcode.name not in ("PROTO", "STOP"):
            pickle.follow(opcode, argument)
    return operations


def check_pickles(path: Path) -> None:
    """Raise an error unless the pickles in a `torch.save` file build only tensors and plain containers, of sane size.

    Raises:
        ValueError: they build something else.
        KeyError, IndexError, RuntimeError: the file is damaged.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\3\4":  # the same test as torch's
            _check_pickle(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))
            return
        file.seek(0)
        operations = 0
        for _ in range(_LEGACY_PICKLES):
            operations = _check_pickle(file, operations)
