"""The error for models that the engine does not run."""

from __future__ import annotations


def refusal(what: str) -> ValueError:
    """The error for a model that the engine does not run."""
    return ValueError(f"the engine does not run {what}; PyTorch does: sparsekit.load, or transformers' from_pretrained")
