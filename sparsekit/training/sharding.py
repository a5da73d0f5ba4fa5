"""Shard weights, gradients and optimizer state over processes, for models too large for one process.

Every parameter is split evenly over all processes, and gathered while its transformer block runs (FSDP: Zhao et al.,
arXiv 2304.11277, with torch's `fully_shard`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from sparsekit.introspect.transformer_blocks import outer_lists
from sparsekit.training.processes import process_count


def shard(model: nn.Module) -> None:
    """Shard a model in place, by transformer block. This cannot be undone, see `whole_tensors`.

    Masks must be added before; they stay whole in every process.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (process_count(),))
    for layer in chain.from_iterable(outer_lists(model).values()):
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def averaged(forward: nn.Module, now: bool) -> Iterator[None]:
    """Context in which gradients are averaged over processes, or accumulated locally."""
    if isinstance(forward, DistributedDataParallel) and not now:
        with forward.no_sync():
            yield
        return
    if isinstance(forward, FSDPModule):
        forward.set_requires_gradient_sync(now)
    yield


@contextmanager
def gathered(model: nn.Module, *, whole: bool = True) -> Iterator[None]:
    """Context with whole weights in every process; changes to weights inside are lost, changes to masks are kept.

    Args:
        model: any model; an unsharded one is not changed.
        whole: False lets transformer blocks gather their weights as they run.
    """
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    chosen = parts if whole else parts[:1]
    for part in chosen:
        part.unshard()
    try:
        yield
    finally:
        for part in chosen:
            part.reshard()


def whole_tensors(tensors: Mapping[str, torch.Tensor], *, kept: bool = True) -> dict[str, torch.Tensor]:
    """Copy tensors to the CPU, gathering sharded ones; all processes must call it.

    Args:
        tensors: tensors by name.
        kept: False for a process that only contributes its shards, and gets nothing.
    """
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if kept:
            found[name] = whole.detach().to("cpu", copy=True).contiguous()
    return found


def parts_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Shard a whole tensor like another one; unchanged if that is not sharded."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def load_whole_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict of whole tensors into a model, sharded or not.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    own = model.state_dict()
    model.load_state_dict({name: parts_like(one, own[name]) if name in own else one for name, one in state.items()})
