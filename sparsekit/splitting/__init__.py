"""Modules that hold several weight matrices in parameters of their own, with a linear layer for each matrix instead.

`nn.MultiheadAttention`, the experts of mixtures and XLNet multiply by parts of their parameters themselves. Split, they
call `nn.Linear` layers, which can be pruned, measured and converted one by one; merged, they are what they were.
"""

from __future__ import annotations

import functools
import inspect
import re
from contextlib import suppress

from torch import nn

from sparsekit.introspect.hooks import attached
from sparsekit.splitting.attention import SplitAttention
from sparsekit.splitting.einsum import SplitEinsum
from sparsekit.splitting.encoder import PaddedEncoder, pad_encoders, pad_plain_encoders
from sparsekit.splitting.experts import SplitBatchedExperts, SplitExperts, SplitParallelExperts
from sparsekit.splitting.split_module import Matrix, SplitModule

#: Kinds of modules that can be split; the first that finds its matrices takes a module.
KINDS: tuple[type[SplitModule], ...] = (
    SplitAttention,
    SplitExperts,
    SplitBatchedExperts,
    SplitParallelExperts,
    SplitEinsum,
)

__all__ = [
    "KINDS",
    "Matrix",
    "PaddedEncoder",
    "SplitAttention",
    "SplitExperts",
    "SplitModule",
    "pad_encoders",
    "pad_plain_encoders",
    "reads",
    "split",
]


@functools.cache
def _code(cls: type[nn.Module]) -> str:
    """Source of a class and its bases but torch's; what cannot be read is left out."""
    found = []
    for base in cls.mro():
        if not base.__module__.startswith("torch."):
            with suppress(OSError, TypeError):
                found.append(inspect.getsource(base))
    return "\n".join(found)


def reads(parent: type[nn.Module], path: str, *, through_variables: bool = False) -> bool:
    """Whether the code of a class asks a module inside for a parameter that it loses when it is split.

    Args:
        parent: the class.
        path: name of the parameter.
        through_variables: whether any object that is asked for the name counts, not just a module of the class's own.
    """
    code = _code(parent)  # type: ignore[arg-type]  # mypy knows no hash of it
    owner = "" if through_variables else r"self\.\w+"
    return re.search(rf"{owner}\.{re.escape(path)}\b", code) is not None


def split(module: nn.Module) -> SplitModule | None:
    """A module with a linear layer for each of the matrices of `module`, which share its memory; None if it has none.

    The module itself stays as it is. Modules with hooks, or a `forward` of their own, are not split.
    """
    if attached(module):
        return None
    for kind in KINDS:
        matrices = kind.find(module)
        if matrices:
            made = kind.of(module, matrices)
            return made if made.is_same_as(module) else None
    return None
