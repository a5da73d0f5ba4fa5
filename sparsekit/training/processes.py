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

#: How long processes wait for each other: one may ask a teacher about all the data meanwhile.
_TIMEOUT = timedelta(hours=12)


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def join_group() -> None:
    """Join the processes that `torchrun` started, until this one exits; nothing where it did not."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_TIMEOUT)
        atexit.register(_leave_group)  # its threads must end before the interpreter does


def process_count() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_number() -> int:
    """This one's number; 0 writes files and shows progress."""
    return dist.get_rank() if process_count() > 1 else 0


def first_alone(do: Callable[[], T]) -> T:
    """Process 0 first, then the others: what the first writes, such as a teacher's answers, the others only read."""
    if process_count() == 1:
        return do()
    if process_number() == 0:
        done = do()
        dist.barrier()
        return done
    dist.barrier()
    return do()


def from_all(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Every process's tensor, of one shape and on the CPU, by the process's number."""
    if process_count() == 1:
        return [tensor]
    found = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(found, tensor)
    return found


def wait_for_all() -> None:
    """Go on when all processes are here."""
    if process_count() > 1:
        dist.barrier()


def same_everywhere(value: float) -> float:
    """Process 0's value in all processes, so that all take the same decisions."""
    if process_count() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)
