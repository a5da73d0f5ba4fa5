"""Split modules that hold several weight matrices into one linear layer per matrix.

`nn.MultiheadAttention`, mixtures of experts and XLNet multiply by slices of their own parameters. After a split they
call `nn.Linear` layers, which can be pruned, measured and converted one by one; merging restores the original module.
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

#: Kinds of split modules; the first that finds its matrices in a module is used.
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
    """Source of a class and its bases except torch's; classes without readable source are left out."""
    found = []
    for base in cls.mro():
        if not base.__module__.startswith("torch."):
            with suppress(OSError, TypeError):
                found.append(inspect.getsource(base))
    return "\n".join(found)


def reads(parent: type[nn.Module], path: str, *, through_variables: bool = False) -> bool:
    """Whether the code of a class reads a submodule's parameter, which would disappear in a split.

    Args:
        parent: the class.
        path: name of the parameter.
        through_variables: whether reading the name from any object counts, not just from a submodule of the class.
    """
    code = _code(parent)  # type: ignore[arg-type]  # mypy knows no hash of it
    owner = "" if through_variables else r"self\.\w+"
    return re.search(rf"{owner}\.{re.escape(path)}\b", code) is not None


def split(module: nn.Module) -> SplitModule | None:
    """A module with a linear layer for each matrix of `module`, sharing its memory; None if it cannot be split.

    `module` itself does not change. Modules with hooks or a replaced `forward` are not split.
    """
    if attached(module):
        return None
    for kind in KINDS:
        matrices = kind.find(module)
        if matrices:
            made = kind.of(module, matrices)
            return made if made.is_same_as(module) else None
    return None
