"""Every text family of transformers end to end: prune, convert, fuse, pad, generate, save, load, undo."""

import copy

import pytest
import torch
import zoo

import sparsekit
from sparsekit.pruning import finalize

#: Checked by `make test`; all of `zoo.FAMILIES` by `make test-all`.
OFTEN = (
    *("bert", "distilbert", "deberta-v2", "modernbert", "t5", "gpt2"),
    *("llama", "gemma2", "falcon", "gpt_neox", "mixtral", "falcon_h1"),
)
SPARSITY = 0.75


def _slow_unless_often(family: str):
    return pytest.param(family, marks=() if family in OFTEN else pytest.mark.slow)


@pytest.fixture(scope="module", params=map(_slow_unless_often, zoo.FAMILIES))
def pruned(request: pytest.FixtureRequest) -> zoo.Member:
    """A family's model, pruned, still dense."""
    found = zoo.member(request.param)
    sparsekit.prune(found.model, SPARSITY)
    finalize(found.model)
    return found


def converted(pruned: zoo.Member, **settings) -> torch.nn.Module:
    model = copy.deepcopy(pruned.model)
    report = sparsekit.conversion_report(sparsekit.convert(model, min_sparsity=SPARSITY - 0.1, **settings))
    assert any(not row.reason for row in report.layers), f"nothing of {pruned.family} was converted"
    return model


def close(model: torch.nn.Module, pruned: zoo.Member) -> None:
    expected = zoo.logits(pruned.model, pruned.kind)
    torch.testing.assert_close(zoo.logits(model, pruned.kind), expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_a_converted_and_fused_model_answers_as_the_dense_one(pruned):
    model = converted(pruned)
    close(model, pruned)
    close(sparsekit.fuse(model), pruned)


def test_int8_stays_near(pruned):
    expected = zoo.logits(pruned.model, pruned.kind).flatten()
    found = zoo.logits(sparsekit.fuse(converted(pruned, dtype="int8")), pruned.kind).flatten()
    assert torch.cosine_similarity(found, expected, dim=0) > 0.97


def generated(model: torch.nn.Module, kind: str) -> torch.Tensor:
    given = {name: tensor for name, tensor in zoo.inputs(kind).items() if name != "decoder_input_ids"}
    start = {"decoder_start_token_id": 1} if kind == "encoder-decoder" else {}
    return model.generate(**given, **start, max_new_tokens=5, min_new_tokens=5, do_sample=False)


def test_the_same_text_is_generated(pruned):
    if not pruned.writes:
        return
    assert torch.equal(generated(sparsekit.fuse(converted(pruned)), pruned.kind), generated(pruned.model, pruned.kind))


def test_a_folder_brings_the_model_back(pruned, tmp_path):
    model = converted(pruned)
    sparsekit.save(model, tmp_path / "model")
    expected = zoo.logits(model, pruned.kind)
    assert torch.equal(zoo.logits(sparsekit.load(tmp_path / "model"), pruned.kind), expected)
    opened = type(pruned.model).from_pretrained(tmp_path / "model").eval()
    assert torch.equal(zoo.logits(opened, pruned.kind), expected)


def test_everything_can_be_undone(pruned):
    model = sparsekit.densify(sparsekit.unfuse(sparsekit.fuse(converted(pruned))))
    assert type(model) is type(pruned.model)
    state, expected = model.state_dict(), pruned.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    close(model, pruned)
