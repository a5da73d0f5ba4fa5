"""Run an engine in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class EngineProcess:
    """A child process with an open model that waits for requests.

    Args:
        kind: a key of `engines.OPENERS`.
        model: file or folder to open.
        threads: the engine's threads, and processors to pin it to.
        context: context length.

    Raises:
        RuntimeError: the process ended; the message has its last output.
    """

    def __init__(self, kind: str, model: Path, threads: int, context: int) -> None:
        arguments = [kind, str(model), str(threads), str(context)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(  # noqa: S603 - this Python and this package
            [sys.executable, "-m", "sparsekit.bench.language.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:threads])
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"an engine ended: {self._log.read().strip()[-2000:]}")
        return json.loads(line)

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def first_token(self, prompt: Sequence[int]) -> tuple[float, int]:
        """Seconds to the first token after a prompt, and the token."""
        seconds, token = self._ask(what="first_token", prompts=[list(prompt)])
        return seconds, token

    def decode(self, prompts: Sequence[Sequence[int]], count: int) -> float:
        """Seconds to decode `count` tokens after each prompt, without the first one."""
        seconds: float = self._ask(what="decode", prompts=[list(prompt) for prompt in prompts], count=count)
        return seconds

    def resident_bytes(self) -> int | None:
        """Resident memory of the process."""
        found: int | None = self._ask(what="memory")
        return found
