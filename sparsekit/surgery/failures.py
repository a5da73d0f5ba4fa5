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
    """Exceptions raised by a model whose parts do not fit together, or by an unsuitable input or config.

    They include those of huggingface_hub, which validates configs, once it has been imported.
    """
    strict = getattr(sys.modules.get("huggingface_hub.errors"), "StrictDataclassError", None)
    return _BUILT_IN if strict is None else (*_BUILT_IN, strict)
