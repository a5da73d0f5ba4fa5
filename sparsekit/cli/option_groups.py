"""Groups of options that several commands share: fields of a dataclass, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Expand a command's dataclass parameters into one option for each field.

    Args:
        verb: function whose parameters are arguments and options of typer, or dataclasses of these.

    Returns:
        The command for typer, with the fields in place of the dataclasses.
    """
    parameters = inspect.signature(verb, eval_str=True).parameters
    groups: dict[str, Any] = {name: one.annotation for name, one in parameters.items() if is_dataclass(one.annotation)}
    options = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}

    @functools.wraps(verb)
    def flat(**given: Any) -> None:
        filled = {name: group(**{key: given.pop(key) for key in options[name]}) for name, group in groups.items()}
        verb(**given, **filled)

    _show(flat, [one for name, found in parameters.items() for one in options.get(name, {name: found}).values()])
    return flat


def _show(verb: Any, parameters: list[inspect.Parameter]) -> None:
    """Set the signature that typer inspects, with keyword parameters only."""
    verb.__signature__ = inspect.Signature([one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters])
    verb.__annotations__ = {one.name: one.annotation for one in parameters}
