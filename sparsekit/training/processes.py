"""Data-parallel training in the processes that `torchrun` starts."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

#: Timeout of collectives: one process may compute a teacher's outputs for all data meanwhile.
_TIMEOUT = timedelta(hours=12)


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def join_group() -> None:
    """Join the process group of `torchrun` until this process exits; does nothing without `torchrun`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_TIMEOUT)
        atexit.register(_leave_group)  # its threads must end before the interpreter


def process_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_number() -> int:
    """Rank of this process; rank 0 writes files and shows progress."""
    return dist.get_rank() if process_count() > 1 else 0


def first_alone(do: Callable[[], T]) -> T:
    """Context that process 0 runs before the others, which then only read what it wrote (teacher's outputs)."""
    if process_count() == 1:
        return do()
    if process_number() == 0:
        done = do()
        dist.barrier()
        return done
    dist.barrier()
    return do()


def from_all(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Gather a tensor from all processes, by rank; the tensors are on the CPU and have equal shapes."""
    if process_count() == 1:
        return [tensor]
    found = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(found, tensor)
    return found


def wait_for_all() -> None:
    """Barrier: wait for all processes."""
    if process_count() > 1:
        dist.barrier()


def same_everywhere(value: float) -> float:
    """Broadcast process 0's value, so that all processes take the same decisions."""
    if process_count() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)
