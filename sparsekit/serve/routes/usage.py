"""Tokens that an answer took."""

from __future__ import annotations

from collections.abc import Sequence

from sparsekit.engine import Completion
from sparsekit.serve.protocol.responses import TokenDetails, Usage
from sparsekit.serve.work.encoding import Encoded


def usage_of(done: Encoded) -> Usage:
    """Of an encoder."""
    return Usage(prompt_tokens=sum(done.tokens), total_tokens=sum(done.tokens))


def usage_of_texts(completions: Sequence[Completion]) -> Usage:
    """Of generated texts."""
    asked = sum(one.prompt_tokens for one in completions)
    written = sum(len(one.tokens) for one in completions)
    return Usage(
        prompt_tokens=asked,
        completion_tokens=written,
        total_tokens=asked + written,
        prompt_tokens_details=TokenDetails(sum(one.reused_tokens for one in completions)),
    )
