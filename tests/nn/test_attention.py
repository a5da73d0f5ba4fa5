"""Dense attention: from numpy, as a torch operator, and inside transformers models."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tolerances import attention_bound
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import sparsekit
from sparsekit import KernelUnavailableError, ops, runtime
from sparsekit.nn import attention
from sparsekit.ops.attention import _attention


def heads(rng, batch: int, count: int, tokens: int, features: int) -> np.ndarray:
    """As a linear layer gives them: the heads of a token next to each other."""
    return rng.standard_normal((batch, tokens, count, features), dtype=np.float32).swapaxes(1, 2)


def exact(query, key, value, mask=None, causal=False, scale=None):
    """In float64, with the bound of what float32 may be off by."""
    group = query.shape[1] // key.shape[1]
    q, k, v = (array.astype(np.float64) for array in (query, key.repeat(group, 1), value.repeat(group, 1)))
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = scale * q @ k.swapaxes(2, 3)
    magnitudes = abs(scale) * np.abs(q) @ np.abs(k).swapaxes(2, 3)
    added = np.zeros(scores.shape)
    if mask is not None:
        added = added + (np.where(mask, 0.0, -np.inf) if mask.dtype == np.bool_ else mask)
    if causal:
        queries, keys = scores.shape[2:]
        added[..., np.arange(keys) > np.arange(queries)[:, None] + keys - queries] = -np.inf
    scores = scores + added
    largest = scores.max(axis=3, keepdims=True, initial=np.finfo(np.float32).min)
    weights = np.exp(scores - largest)
    weights /= np.maximum(weights.sum(axis=3, keepdims=True), np.finfo(np.float64).tiny)
    shift = np.where(np.isinf(added), 0.0, np.abs(added))
    return weights @ v, attention_bound(magnitudes + shift, weights, v, q.shape[3])


def masks(rng, batch: int, count: int, queries: int, keys: int) -> dict[str, np.ndarray | None]:
    hidden = rng.random((batch, count, queries, keys)) < 0.3
    hidden[:, :, ::3] = True
    added = np.where(hidden, -np.inf, 3 * rng.standard_normal(hidden.shape)).astype(np.float32)
    padding = np.arange(keys) < rng.integers(0, keys + 1, (batch, 1, 1, 1))
    return {
        "none": None,
        "bool": ~hidden,
        "float": added,
        "over heads": ~hidden[:, :1],
        "float over queries": added[:, :, -1:],
        "padding": padding,
        "padding written out": np.repeat(padding, queries, axis=2),
        "one number a query": added[..., 1:2],
        "two dimensions": ~hidden[0, 0],
        "lowest float": np.full((1, 1, 1, keys), np.finfo(np.float32).min),
        "transposed": np.ascontiguousarray(added.swapaxes(2, 3)).swapaxes(2, 3),
    }


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("count", "key_heads", "queries", "keys", "features"),
    [(2, 2, 9, 9, 5), (4, 2, 1, 70, 16), (3, 1, 3, 5, 33), (2, 2, 40, 150, 24)],
)
def test_against_float64(isa, rng, count, key_heads, queries, keys, features, causal):
    query = heads(rng, 2, count, queries, features)
    key, value = heads(rng, 2, key_heads, keys, features), heads(rng, 2, key_heads, keys, features + 3)
    for name, mask in masks(rng, 2, count, queries, keys).items():
        found = runtime.attention(query, key, value, mask, causal)
        expected, bound = exact(query, key, value, mask, causal)
        assert found.shape == expected.shape
        assert np.all(np.abs(found - expected) <= bound), name


def test_exp_over_the_whole_range(isa, rng):
    """Two keys, of which one scores x less: the weight of the other is exp(x) / (1 + exp(x))."""
    x = np.concatenate([-np.linspace(0, 86, 2000), [-104.0, -1e4, -3e38]]).astype(np.float32)
    query = np.ascontiguousarray(x[None, None, :, None])
    key, value = np.array([[0.0], [1.0]], np.float32)[None, None], np.array([[0.0], [1.0]], np.float32)[None, None]
    for part in (query, query[:, :, -2:], query[:, :, 500:502]):
        found = runtime.attention(part, key, value, scale=1.0)[0, 0, :, 0]
        expected = 1 / (1 + np.exp(-np.maximum(part[0, 0, :, 0].astype(np.float64), -700)))
        tiny = expected < np.finfo(np.float32).tiny
        assert np.all(np.abs(found / expected - 1)[~tiny] <= 4e-7)
        assert np.all(found[tiny] == 0)


def test_any_layout(rng):
    query, key, value = (heads(rng, 2, 3, 20, 8) for _ in range(3))
    expected = runtime.attention(query, key, value)
    assert expected.swapaxes(1, 2).flags.c_contiguous
    for change in (np.ascontiguousarray, np.asfortranarray, lambda x: x[:, :, ::-1][:, :, ::-1]):
        np.testing.assert_array_equal(runtime.attention(change(query), change(key), change(value)), expected)
    backwards = runtime.attention(query[:, ::-1], key[:, ::-1, ::-1], value[:, ::-1, ::-1])[:, ::-1]
    np.testing.assert_allclose(backwards, expected, rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_threads(isa, rng):
    before = torch.get_num_threads()
    try:
        for queries, keys in ((200, 200), (1, 9000), (50, 600)):
            query, key, value = heads(rng, 1, 4, queries, 32), heads(rng, 1, 2, keys, 32), heads(rng, 1, 2, keys, 32)
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(runtime.attention(query, key, value, causal=True))
            np.testing.assert_array_equal(results[0], results[1])
            np.testing.assert_array_equal(results[0], results[2])
    finally:
        torch.set_num_threads(before)


def test_numpy_refuses_wrong_input(rng):
    query, key = heads(rng, 1, 4, 3, 8), heads(rng, 1, 2, 5, 8)
    with pytest.raises(TypeError, match="query must be a float32 array, got float64"):
        runtime.attention(query.astype(np.float64), key, key)
    with pytest.raises(ValueError, match=r"key must have 4 dimensions \[batch, heads, tokens, features\], got shape"):
        runtime.attention(query, key[0], key)
    with pytest.raises(ValueError, match=r"the key must have shape \[1, 2, 5, 8\] to go with the others, got"):
        runtime.attention(query, key[..., :7], key)
    with pytest.raises(ValueError, match="multiple of those of the key, got 4 and 3"):
        runtime.attention(query, heads(rng, 1, 3, 5, 8), key)
    with pytest.raises(TypeError, match="mask must be a bool or float32 array, got int64"):
        runtime.attention(query, key, key, np.ones((3, 5), np.int64))
    with pytest.raises(ValueError, match=r"mask must broadcast to \[1, 4, 3, 5\], got shape \[3, 4\]"):
        runtime.attention(query, key, key, np.ones((3, 4), np.bool_))


def tensors(batch=2, count=4, key_heads=2, queries=6, keys=9, features=8) -> list[torch.Tensor]:
    sizes = [(count, queries), (key_heads, keys), (key_heads, keys)]
    return [torch.randn(batch, tokens, number, features).transpose(1, 2) for number, tokens in sizes]


@pytest.mark.parametrize("mask", [None, torch.randn(6, 9), torch.rand(2, 1, 6, 9) < 0.5, torch.rand(2, 4, 1, 9) < 0.5])
def test_equals_torch(mask):
    torch.manual_seed(0)
    query, key, value = tensors()
    expected = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True, scale=0.3)
    found = ops.attention(query, key, value, mask, scale=0.3)
    torch.testing.assert_close(found, expected)
    assert found.stride() == expected.stride()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, torch.randn(2, 1, 6, 9), torch.rand(6, 9) < 0.5])
def test_opcheck(mask, causal):
    torch.manual_seed(0)
    operator = torch.ops.sparsekit.attention.default
    torch.library.opcheck(operator, (*tensors(), mask, causal, None))
    torch.library.opcheck(operator, (*(x.contiguous() for x in tensors()), mask, causal, 0.5))


def test_no_gradients():
    query, key, value = tensors()
    query.requires_grad_()
    with pytest.raises(NotImplementedError, match="has no gradient; call it under torch.no_grad"):
        ops.attention(query, key, value)
    with pytest.raises(NotImplementedError, match="has no gradient"):
        torch.ops.sparsekit.attention(query, key, value, None, False, None).sum().backward()
    with torch.no_grad():
        assert not ops.attention(query, key, value).requires_grad
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(lambda x: ops.attention(x, key, value), (query,), (query,))


def test_torch_refuses_wrong_input():
    query, key, value = tensors()
    with pytest.raises(TypeError, match="query must be float32, got torch.float16"):
        ops.attention(query.half(), key, value)
    with pytest.raises(ValueError, match=r"value must have shape \[batch, heads, tokens, features\], got"):
        ops.attention(query, key, value[0])
    with pytest.raises(ValueError, match=r"the value must have shape \[2, 2, 9, 8\]"):
        ops.attention(query, key, value[:, :, :3])
    with pytest.raises(ValueError, match=r"mask must broadcast to \[2, 4, 6, 9\], got shape \[5, 9\]"):
        ops.attention(query, key, value, torch.randn(5, 9))
    with pytest.raises(TypeError, match="mask must be bool or float32 on the CPU, got torch.int64"):
        ops.attention(query, key, value, torch.ones(6, 9).long())
    with pytest.raises(KernelUnavailableError, match="runs on the CPU, got key on meta"):
        _attention(query, key.to("meta"), value, None, False, None)


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64}
    return BertModel(BertConfig(vocab_size=100, **sizes)).eval()


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 64}
    return LlamaForCausalLM(LlamaConfig(vocab_size=100, num_key_value_heads=2, **sizes)).eval()


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """The arguments of every call of our attention."""
    found: list[tuple] = []
    original = ops.attention

    def spy(*arguments):
        found.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(ops, "attention", spy)
    return found


def batch(left: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.randint(100, (3, 37), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 20:], mask[2, 3:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask}


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_bert_equals_itself(bert, calls, padded):
    model = sparsekit.use_attention(copy.deepcopy(bert))
    inputs = batch() if padded else {"input_ids": batch()["input_ids"]}
    found, expected = model(**inputs).last_hidden_state, bert(**inputs).last_hidden_state
    kept = batch()["attention_mask"].bool() if padded else ...
    torch.testing.assert_close(found[kept], expected[kept])
    assert len(calls) == 2


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_llama_equals_itself(llama, calls, padded):
    model = sparsekit.use_attention(copy.deepcopy(llama))
    inputs = batch(left=True) if padded else {"input_ids": batch()["input_ids"]}
    kept = inputs["attention_mask"].bool() if padded else ...
    torch.testing.assert_close(model(**inputs).logits[kept], llama(**inputs).logits[kept])
    assert len(calls) == 2
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    for cache in ("dynamic", "static"):
        options["cache_implementation"] = cache
        assert torch.equal(model.generate(**inputs, **options), llama.generate(**inputs, **options))


def test_what_the_kernels_do_not_compute_is_left_to_torch(bert, calls):
    model = sparsekit.use_attention(copy.deepcopy(bert))
    inputs = batch()
    result = model(**inputs).last_hidden_state
    result.sum().backward()
    assert model.encoder.layer[0].attention.self.query.weight.grad is not None
    with torch.no_grad():
        model.train()(**inputs)
        model.eval().to(torch.bfloat16)(**inputs)
    assert calls == []
    with torch.no_grad():
        model.float()(**inputs)
    assert len(calls) == 2


@torch.no_grad()
def test_the_compiled_model_is_one_graph(bert):
    inputs = batch()
    expected = bert(**inputs).last_hidden_state
    compiled = torch.compile(sparsekit.use_attention(copy.deepcopy(bert)), backend="aot_eager", fullgraph=True)
    kept = inputs["attention_mask"].bool()
    torch.testing.assert_close(compiled(**inputs).last_hidden_state[kept], expected[kept])


def test_onnx_gets_attention_that_it_knows(bert, tmp_path):
    pytest.importorskip("onnxscript")
    model = sparsekit.use_attention(copy.deepcopy(bert))
    inputs = batch()
    with torch.no_grad():
        program = torch.onnx.export(model, (), kwargs=inputs, dynamo=True, verbose=False)
        exported = torch.export.export(model, (), inputs)
    assert {node.domain for node in program.model.graph} == {""}
    assert "torch.ops.sparsekit.attention" in exported.graph_module.code


def test_undone_and_not_saved(bert, tmp_path):
    model = sparsekit.use_attention(nn.Sequential(copy.deepcopy(bert)))[0]
    assert model.config._attn_implementation == "sparsekit"
    model.save_pretrained(tmp_path)
    assert "sparsekit" not in (tmp_path / "config.json").read_text()
    model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("before", ["eager", "sdpa"])
def test_attention_becomes_what_it_was(bert, before):
    model = copy.deepcopy(bert)
    model.set_attn_implementation(before)
    for _ in range(2):
        sparsekit.fuse(sparsekit.fuse(model))
        assert model.config._attn_implementation == "sparsekit"
        sparsekit.unfuse(copy.deepcopy(model))
        sparsekit.unfuse(model)
        assert model.config._attn_implementation == before
    sparsekit.fuse(model)
    model.set_attn_implementation("sdpa")  # by the user
    assert sparsekit.unfuse(model).config._attn_implementation == "sdpa"


def test_models_inside_a_model_keep_their_own(bert):
    both = nn.ModuleList([copy.deepcopy(bert), copy.deepcopy(bert)])
    both[0].set_attn_implementation("eager")
    sparsekit.unfuse(sparsekit.fuse(both))
    assert [model.config._attn_implementation for model in both] == ["eager", "sdpa"]


def test_models_that_it_does_not_fit(bert, monkeypatch):
    with pytest.raises(TypeError, match="expected a transformers model, or a module that holds one, got Linear"):
        sparsekit.use_attention(nn.Linear(2, 2))
    model = copy.deepcopy(bert)
    monkeypatch.setattr(attention, "_ASKS_FOR_SDPA", attention.re.compile("class BertModel"))
    with pytest.raises(ValueError, match="the code of BertModel treats torch's attention in a way of its own"):
        sparsekit.use_attention(model)
    monkeypatch.setattr(BertModel, "_supports_sdpa", False)
    with pytest.raises(ValueError, match="BertModel needs more of its attention than torch's has"):
        sparsekit.use_attention(model)
    assert model.config._attn_implementation == "sdpa"
