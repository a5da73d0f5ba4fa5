"""Limit the modules that an untrusted configuration can create, by the number of arrays in the folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.nn.modules import module as registration

#: Modules, parameters and buffers that a model may register per tensor in the folder (transformers models register up
#: to 4), and an additional allowance, for models that get a new head.
_FOR_EACH, _ROOM = 20, 5_000


@contextmanager
def enough_for(tensors: int) -> Iterator[None]:
    """Limit the modules and tensors that this thread registers to what a model with this many tensors needs.

    A few digits in a configuration can request 10^8 layers, under any of a hundred names.

    Raises:
        ValueError: the limit is exceeded; raised while the model is built.
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
