"""MiniLM whole, with imposed sparsity, under pytest-benchmark: what a model gains when only its linears are sparse.

.venv/bin/python -m pytest benchmarks/test_model.py --benchmark-json=model.json
"""

import pytest
import torch

from sparsekit import convert, finalize, prune
from sparsekit.demo.model import SentenceClassifier, load_minilm
from sparsekit.demo.training import IGNORE


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("sparsity", [0.8, 0.9])
@pytest.mark.parametrize(("sentences", "tokens"), [(1, 16), (16, 128)])
@pytest.mark.parametrize("threads", [1, 2])
def test_minilm(benchmark, sentences, tokens, sparsity, kind, threads):
    encoder, _ = load_minilm()
    model = SentenceClassifier(encoder).eval()
    prune(model, sparsity, ignore=IGNORE)
    finalize(model)
    if kind == "sparse":
        convert(model, ignore=IGNORE, min_sparsity=0.5)
    torch.manual_seed(0)
    inputs = torch.randint(1000, 20_000, (sentences, tokens)), torch.ones(sentences, tokens, dtype=torch.int64)
    benchmark.group = f"{sentences} x {tokens} tokens, {sparsity:.0%}, threads {threads}"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            result = benchmark(model, *inputs)
    finally:
        torch.set_num_threads(before)
    assert result.logits.shape == (sentences, 2)
