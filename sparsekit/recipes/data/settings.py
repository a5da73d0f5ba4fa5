"""Settings of a recipe's data: columns of the tables, lengths, splits."""

from __future__ import annotations

from pydantic import Field

from sparsekit.recipes.settings import MAX_BATCH_SIZE, MAX_TOKENS, Strict


class Data(Strict):
    """Columns of the tables, and how texts are truncated and batched."""

    text: str = "text"
    pair: str | None = None
    label: str | None = None
    max_tokens: int = Field(default=128, ge=1, le=MAX_TOKENS)
    batch_size: int = Field(default=32, ge=1, le=MAX_BATCH_SIZE)
    test_part: float = Field(default=0.1, ge=0, lt=1)  # fraction of the data, if no test file is given
    validation_part: float = Field(default=0.1, ge=0, lt=1)  # fraction of the rest, if needed and no file is given
