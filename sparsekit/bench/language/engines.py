"""Engines of the language benchmark, a class each. Their libraries are imported when an engine is opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sparsekit.engine.continuous_batching import Completion

#: Batch size of batched decoding.
SEQUENCES = 4

Prompts = Sequence[Sequence[int]]


class Engine(Protocol):
    """A language model with greedy decoding on token ids."""

    def first_token(self, prompt: Sequence[int]) -> tuple[float, int]:
        """Seconds to the first token after a prompt, and the token."""

    def decode(self, prompts: Prompts, count: int) -> float:
        """Seconds to decode `count` tokens after each prompt, without the first one; the prompts form a batch."""


class OfSparsekit:
    """sparsekit's engine on a compiled file, read rather than mapped: the small pages of a mapping cost TLB misses.

    Args:
        model: the compiled file.
        threads: size of the thread pool.
        context: context length.
    """

    def __init__(self, model: Path, threads: int, context: int) -> None:
        from sparsekit import runtime
        from sparsekit.engine.compiled_file import read_compiled

        runtime.set_num_threads(threads)
        self._context = context
        self._decoder = runtime.CompiledDecoder(read_compiled(model, False))

    def _run(self, prompts: Prompts, count: int) -> list[Completion]:
        from sparsekit.engine.continuous_batching import Batch, RunningText
        from sparsekit.engine.prefix_caches import PrefixCaches
        from sparsekit.engine.sampling import Sampling

        caches = PrefixCaches(self._decoder, self._context)
        nothing: Any = NoText()
        texts = [RunningText(prompt, len(prompt) + count, Sampling(), nothing) for prompt in prompts]
        for _ in Batch(self._decoder, caches, frozenset(), SEQUENCES).run(texts):
            pass
        return [text.completion for text in texts]

    def first_token(self, prompt: Sequence[int]) -> tuple[float, int]:
        """See `Engine`."""
        (done,) = self._run([prompt], 1)
        return done.first_token_seconds, done.tokens[0]

    def decode(self, prompts: Prompts, count: int) -> float:
        """See `Engine`."""
        return max(done.seconds - done.first_token_seconds for done in self._run(prompts, count))


class NoText:
    """Stand-in for `TextStream` that does not detokenize."""

    stopped = False

    def push(self, token: int) -> str:
        """No text."""
        return ""

    def finish(self) -> str:
        """No text."""
        return ""


class OfLlamaCpp:
    """llama.cpp through its server function, with its own timings; no prompt caching, end tokens ignored.

    Args:
        model: a GGUF file.
        threads: threads for prefill and decode.
        context: context length.
    """

    def __init__(self, model: Path, threads: int, context: int) -> None:
        self._model, self._threads, self._context = model, threads, context
        self._one = self._server(1)
        self._many: Any = None  # a separate server, since sequences in a batch share its context

    def _server(self, sequences: int) -> Any:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self._model)
        params.n_ctx, params.n_parallel = self._context * sequences, sequences
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.n_gpu_layers, params.warmup, params.cache_prompt = 0, True, False
        return xllamacpp.Server(params)

    def _complete(self, server: Any, prompt: Sequence[int], count: int, **options: Any) -> dict[str, Any]:
        request = {"prompt": list(prompt), "n_predict": count, "temperature": 0.0, "ignore_eos": True,
                   "cache_prompt": False, **options}  # fmt: skip
        answer: dict[str, Any] = server.handle_completions(request)
        if "timings" not in answer:
            raise RuntimeError(f"llama.cpp answered {str(answer)[:200]}")
        return answer

    def first_token(self, prompt: Sequence[int]) -> tuple[float, int]:
        """See `Engine`."""
        answer = self._complete(self._one, prompt, 1, n_probs=1)
        return answer["timings"]["prompt_ms"] / 1e3, answer["choices"][0]["logprobs"]["content"][0]["id"]

    def decode(self, prompts: Prompts, count: int) -> float:
        """See `Engine`."""
        if len(prompts) > 1 and self._many is None:
            self._many = self._server(SEQUENCES)
        server = self._one if len(prompts) == 1 else self._many
        with ThreadPoolExecutor(len(prompts)) as pool:
            answers = list(pool.map(lambda prompt: self._complete(server, prompt, count), prompts))
        milliseconds: float = max(answer["timings"]["predicted_ms"] for answer in answers)
        return milliseconds / 1e3


class OfTorch:
    """transformers with its key-value cache, in float32.

    Args:
        model: a model folder.
        threads: torch's threads.
        context: context length; ignored, as the cache grows.
    """

    def __init__(self, model: Path, threads: int, context: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from sparsekit.checkpoint.transformers.foreign import from_folder

        torch.set_num_threads(threads)
        self._model = from_folder(AutoModelForCausalLM.from_pretrained, model, dtype=torch.float32).eval()

    def _steps(self, prompts: Prompts, count: int) -> list[tuple[float, list[int]]]:
        """Time at the end of each step, and its tokens."""
        import torch

        ids, cache, steps = torch.tensor([list(prompt) for prompt in prompts]), None, []
        with torch.inference_mode():
            for _ in range(count):
                found = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = found.logits[:, -1:].argmax(-1), found.past_key_values
                steps.append((time.perf_counter(), ids[:, 0].tolist()))
        return steps

    def first_token(self, prompt: Sequence[int]) -> tuple[float, int]:
        """See `Engine`."""
        start = time.perf_counter()
        ((done, tokens),) = self._steps([prompt], 1)
        return done - start, tokens[0]

    def decode(self, prompts: Prompts, count: int) -> float:
        """See `Engine`."""
        steps = self._steps(prompts, count)
        return steps[-1][0] - steps[0][0]


#: Kind of engine -> class that opens it.
OPENERS: dict[str, Callable[[Path, int, int], Engine]] = {
    "sparsekit": OfSparsekit,
    "llama.cpp": OfLlamaCpp,
    "torch": OfTorch,
}
