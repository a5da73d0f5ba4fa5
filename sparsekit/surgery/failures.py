"""Exceptions that mismatched models and configs raise."""

from __future__ import annotations

import sys

_BUILT_IN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def failures() -> tuple[type[Exception], ...]:
    """Exceptions of a model that does not fit together, or gets an input or a config that it cannot take.

    Those of huggingface_hub, which checks configs, are among them once it was imported.
    """
    strict = getattr(sys.modules.get("huggingface_hub.errors"), "StrictDataclassError", None)
    return _BUILT_IN if strict is None else (*_BUILT_IN, strict)
