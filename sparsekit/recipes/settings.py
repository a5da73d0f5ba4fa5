"""Base class of recipe settings: unknown keys are errors, numbers have limits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

#: Upper limits of settings: larger values would run out of memory or never finish.
MAX_BATCH_SIZE, MAX_TOKENS, MAX_EPOCHS = 2**16, 2**20, 10**6


class Strict(BaseModel):
    """Settings that refuse unknown keys, infinities and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _quoted(structure: Any) -> Any:
    if isinstance(structure, int) and structure > 60:
        kept, group = divmod(structure, 60)
        raise ValueError(f"YAML reads {kept}:{group} as the number {structure}; put it in quotes: '{kept}:{group}'")
    return structure


#: Structure of a mask: "unstructured", "N:M" or "RxC".
MaskStructure = Annotated[str, BeforeValidator(_quoted)]
