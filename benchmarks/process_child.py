"""Child process of processes.py: runs one engine, does a job and prints measurements as JSON. Imports no torch.

process_child.py JOB ENGINE MODEL TOKENIZER NUMBER
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

BEGIN = time.perf_counter()
MOST_TOKENS = 256
SENTENCE = "a film that knows what it wants to be and gets there without hurry"
#: Number of calls after which memory use is considered stable.
SETTLED = 500
#: Opens an engine's model with a tokenizer, on `threads` threads; what it returns computes a vector for each text.
Opener: TypeAlias = "partial[Callable[[Sequence[str]], Any]]"


def open_sparsekit(model: Path, tokenizer: Path, threads: int) -> Callable[[Sequence[str]], Any]:
    from sparsekit.engine import Encoder

    return Encoder(model, tokenizer=tokenizer, threads=threads).encode


def open_onnxruntime(model: Path, tokenizer: Path, threads: int) -> Callable[[Sequence[str]], Any]:
    from padded_encoder import onnxruntime_encoder

    return onnxruntime_encoder(model, tokenizer, MOST_TOKENS, threads)


OPENERS = {"sparsekit-engine-int8": open_sparsekit, "onnxruntime-int8": open_onnxruntime}


def memory() -> dict[str, int]:
    """Bytes of this process: resident now and at most, and by kind."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"resident": "VmRSS", "peak": "VmHWM", "anonymous": "RssAnon", "of_files": "RssFile"}
    return {name: 1024 * int(lines[key].split()[0]) for name, key in names.items()}


def calls_of_mixed_sizes() -> Callable[[], list[str]]:
    """Texts of one call after the other: mostly one short text, seldom 16 long ones."""
    order = random.Random(0)  # noqa: S311 - sizes of calls, not a secret
    words = SENTENCE.split()

    def texts() -> list[str]:
        if order.random() < 0.002:
            return [" ".join(order.choices(words, k=120))] * 16
        return [" ".join(order.choices(words, k=order.randint(1, 40))) for _ in range(order.choice((1, 1, 1, 1, 2, 4)))]

    return texts


def start(opener: Opener, number: float) -> dict[str, Any]:
    """Seconds from the first line of Python to an open model, and to the first answer; memory then."""
    encode = opener(threads=1)
    opened = time.perf_counter() - BEGIN
    vector = encode([SENTENCE])[0]
    return {
        "seconds_to_open": opened,
        "seconds_to_answer": time.perf_counter() - BEGIN,
        "vector": [float(value) for value in vector],
        **memory(),
    }


def idle(opener: Opener, number: float) -> dict[str, Any]:
    """Processor seconds used while idle for `number` seconds, after a call on two threads."""
    encode, texts = opener(threads=2), calls_of_mixed_sizes()
    for _ in range(20):
        encode(texts())
    encode([SENTENCE] * 16)
    before = time.process_time()
    time.sleep(number)
    return {"idle_seconds": number, "processor_seconds": time.process_time() - before}


def growth(opener: Opener, number: float) -> dict[str, Any]:
    """Memory after some and after `number` calls of mixed sizes."""
    encode, texts = opener(threads=1), calls_of_mixed_sizes()
    found: dict[str, Any] = {}
    encode([" ".join([SENTENCE] * 10)] * 16)  # the largest call comes before what is taken as settled
    for count in range(1, int(number) + 1):
        encode(texts())
        if count in (min(SETTLED, int(number)), int(number)):
            found[str(count)] = memory()
    return found


def hold(opener: Opener, number: float) -> dict[str, Any]:
    """Embed a text, report readiness, and wait until standard input ends."""
    encode, texts = opener(threads=1), calls_of_mixed_sizes()
    for _ in range(20):
        encode(texts())
    print("ready", flush=True)
    sys.stdin.read()
    return {}


def threads(opener: Opener, number: float) -> dict[str, Any]:
    """Seconds of 16 x 128 tokens on one thread and on two, interleaved for `number` seconds."""
    from sparsekit import runtime
    from sparsekit.engine import Encoder
    from sparsekit.timing.comparing import compare

    encoder = Encoder(opener.keywords["model"])
    order = random.Random(0)  # noqa: S311 - token ids, not a secret
    ids = [[order.randint(1000, 30000) for _ in range(128)] for _ in range(16)]

    def call(count: int) -> Any:
        runtime.set_num_threads(count)
        return encoder.run(ids)

    assert all((one == two).all() for one, two in zip(call(1), call(2), strict=True)), "threads change answers"
    timings = compare({str(count): partial(call, count) for count in (1, 2)}, seconds=number)
    found = {name: {"seconds": one.median, "low": one.low, "high": one.high} for name, one in timings.items()}
    return {**found, "times_faster": timings["1"].median / timings["2"].median}


JOBS = {job.__name__: job for job in (start, idle, growth, hold, threads)}


def main(job: str, engine: str, model: str, tokenizer: str, number: str) -> None:
    opener = partial(OPENERS[engine], model=Path(model), tokenizer=Path(tokenizer))
    found = JOBS[job](opener, float(number))
    assert "torch" not in sys.modules, "torch was imported"
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
