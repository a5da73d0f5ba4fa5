"""Limit the modules that untrusted configurations make: a budget by the folder's arrays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.nn.modules import module as registration

#: Modules, parameters and buffers that a model may register for each tensor that a folder has of it; models of
#: transformers register up to 4. And what is allowed on top of that, for bodies that get a new head.
_FOR_EACH, _ROOM = 20, 5_000


@contextmanager
def enough_for(tensors: int) -> Iterator[None]:
    """Limit what this thread registers in modules to what a model with so many tensors may have.

    A few digits in a configuration can ask for 10^8 layers, under any of a hundred names.

    Raises:
        ValueError: more was registered, while that happens.
    """
    most, thread, count = _FOR_EACH * tensors + _ROOM, threading.get_ident(), 0

    def registered(owner: Any, name: str, value: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise ValueError(f"it has more than {most} modules, parameters and buffers, the folder {tensors} tensors")

    with ExitStack() as hooks:
        for add in (
            registration.register_module_module_registration_hook,
            registration.register_module_parameter_registration_hook,
            registration.register_module_buffer_registration_hook,
        ):
            hooks.callback(add(registered).remove)
        yield
