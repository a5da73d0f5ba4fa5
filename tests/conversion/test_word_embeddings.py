"""`convert(embeddings="int8")`: which embeddings, what is refused, what the report says, and the way back."""

import copy

import pytest
import torch
import transformers
from tiny_encoders import encoder, hidden_states, sequences
from torch import nn

from sparsekit import conversion_report, convert, densify, fuse, load_state_dict, prune, unfuse
from sparsekit.nn import Int8Embedding

IDS = sequences((9,))[0]


def pruned(*arguments, **changes) -> nn.Module:
    model = encoder(*arguments, **changes)
    prune(model, 0.8)
    return model


class Tokens(nn.Module):
    """No model of transformers: a table of words, one of positions, and a layer."""

    def __init__(self, words: int = 50) -> None:
        super().__init__()
        self.positions = nn.Embedding(10, 8)
        self.words = nn.Embedding(words, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, ids):
        return self.out(self.words(ids) + self.positions(torch.arange(ids.shape[-1])))


def test_the_report_and_the_way_back():
    model = pruned("bert")
    dense = hidden_states(model, IDS)
    weights = sum(parameter.numel() for parameter in model.parameters())
    batches = [{"input_ids": torch.tensor([IDS])}]
    convert(model, min_sparsity=0.5, embeddings="int8", batches=batches)
    table = model.get_input_embeddings()
    assert isinstance(table, Int8Embedding)
    assert isinstance(model.embeddings.position_embeddings, nn.Embedding)
    report = conversion_report(model)
    (found,) = report.embeddings
    assert (found.name, found.shape) == ("embeddings.word_embeddings", (97, 36))
    assert (found.bytes_before, found.bytes_after) == (97 * 36 * 4, 97 * (36 + 4))
    assert "word embeddings in int8: embeddings.word_embeddings (97 x 36), 14 kB -> 3.88 kB" in str(report)
    assert report.to_dict()["embeddings"][0]["bytes_after"] == 97 * 40
    assert report.weights == weights
    assert report.whole is not None
    assert 0.999 < report.whole.fidelity.cosine < 1.0
    found = hidden_states(model, IDS)
    assert abs(found - dense).max() < 0.02 * abs(dense).max()
    back = densify(copy.deepcopy(model))
    assert type(back.get_input_embeddings()) is nn.Embedding
    torch.testing.assert_close(torch.from_numpy(hidden_states(back, IDS)), torch.from_numpy(found))
    assert torch.equal(back.get_input_embeddings()(torch.tensor(IDS)), table(torch.tensor(IDS)))


def test_fused_models_compute_the_same():
    model = convert(pruned("bert"), min_sparsity=0.5, embeddings="int8")
    expected = hidden_states(model, IDS)
    fuse(model)
    torch.testing.assert_close(torch.from_numpy(hidden_states(model, IDS)), torch.from_numpy(expected))
    unfuse(model)
    assert (hidden_states(model, IDS) == expected).all()


def test_converting_twice_leaves_the_table_as_it_is():
    model = convert(pruned("bert"), min_sparsity=0.5, targets=["re:encoder.layer.0"], embeddings="int8")
    table = model.get_input_embeddings()
    convert(model, min_sparsity=0.5, embeddings="int8")
    assert model.get_input_embeddings() is table
    assert conversion_report(model).embeddings == ()


def test_other_models_have_their_largest_table_in_int8():
    model = Tokens()
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8", ignore=["words"])
    assert isinstance(model.words, Int8Embedding)
    assert isinstance(model.positions, nn.Embedding)


def test_a_model_inside_of_another_is_asked():
    model = nn.ModuleDict({"big": nn.Embedding(1000, 36), "encoder": pruned("distilbert")})
    convert(model, min_sparsity=0.5, embeddings="int8")
    assert isinstance(model["encoder"].embeddings.word_embeddings, Int8Embedding)
    assert type(model["big"]) is nn.Embedding


def test_a_model_without_zeros_has_its_table_in_int8_all_the_same():
    model = convert(encoder("bert"), embeddings="int8", tokens=[4])
    report = conversion_report(model)
    assert report.converted == 0
    assert isinstance(model.get_input_embeddings(), Int8Embedding)


def test_state_dicts_go_into_a_fresh_model():
    model = convert(pruned("bert"), min_sparsity=0.5, embeddings="int8")
    again = load_state_dict(encoder("bert"), model.state_dict())
    assert (hidden_states(again, IDS) == hidden_states(model, IDS)).all()
    assert isinstance(load_state_dict(again, model.state_dict()).get_input_embeddings(), Int8Embedding)
    with pytest.raises(ValueError, match="has embeddings in int8 for 'x', where the model has nothing"):
        load_state_dict(encoder("bert"), {"x.codes": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"embeddings in int8 for 'pooler', where the model has a BertPooler"):
        load_state_dict(encoder("bert"), {"pooler.codes": torch.zeros(1)})


def test_a_table_in_two_places_stays_one():
    table = nn.Embedding(50, 8)
    model = nn.ModuleDict({"one": table, "two": table, "out": nn.Linear(8, 4)})
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8")
    assert isinstance(model["one"], Int8Embedding)
    assert model["one"] is model["two"]


def tied(**arguments) -> nn.Module:
    return encoder("bert", "BertForMaskedLM", tie_word_embeddings=True, **arguments)


def t5() -> nn.Module:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 60}
    return transformers.T5EncoderModel(transformers.T5Config(**sizes))


def with_hook() -> nn.Module:
    model = encoder("bert")
    model.get_input_embeddings().register_forward_hook(lambda *_: None)
    return model


def with_infinity() -> nn.Module:
    model = encoder("bert")
    model.get_input_embeddings().weight.data[3, 4] = float("inf")
    return model


class Multiplies(Tokens):
    def forward(self, ids):
        return torch.nn.functional.linear(self.out(self.words(ids)).repeat(1, 2), self.words.weight)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            tied,
            "'bert.embeddings.word_embeddings' cannot .*: their weight is shared with cls.predictions.decoder",
        ),
        (t5, "'encoder.embed_tokens' cannot be stored in int8: their weight is shared with shared"),
        (with_hook, "cannot be stored in int8: it has hooks"),
        (with_infinity, "'embeddings.word_embeddings' cannot be stored in int8: a value is not finite"),
        (Multiplies, "'words' cannot be stored in int8: Multiplies computes with their weight itself"),
        (
            lambda: nn.Sequential(nn.Linear(8, 8)),
            "the model has no word embeddings to store in int8; leave embeddings=",
        ),
    ],
)
def test_models_that_are_refused_stay_as_they_were(make, why):
    model = make()
    prune(model, 0.8, ignore=["cls"] if make is tied else ())
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=why):
        convert(model, min_sparsity=0.5, embeddings="int8")
    assert dict(model.named_modules()) == before


def test_an_unknown_type():
    with pytest.raises(ValueError, match="embeddings must be one of float32, int8, got 'int4'"):
        convert(pruned("bert"), embeddings="int4")
