"""Child process of the language benchmark: runs one engine, reads requests and writes answers, one JSON object a line.

python -m sparsekit.bench.language.child KIND MODEL THREADS CONTEXT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from sparsekit.bench.language.engines import OPENERS, Engine
from sparsekit.runtime.memory import resident_bytes


def _answers_alone() -> TextIO:
    """Reserve the original standard output for answers; engines' own prints go to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(engine: Engine, request: dict[str, Any]) -> Any:
    if request["what"] == "memory":
        return resident_bytes()
    if request["what"] == "first_token":
        return engine.first_token(request["prompts"][0])
    return engine.decode(request["prompts"], request["count"])


def main(kind: str, model: str, threads: str, context: str) -> None:
    """Serve requests until standard input ends."""
    answers = _answers_alone()
    engine = OPENERS[kind](Path(model), int(threads), int(context))
    print(json.dumps("open"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(engine, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
