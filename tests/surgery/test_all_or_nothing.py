"""Pruning that fails leaves the model unchanged: computed, meta and tied weights, and failures halfway."""

import copy

import pytest
import torch
import transformers
from families import batches, family
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparsekit.pruning import (
    allocate_sparsity,
    apply_movement,
    keep_zeros,
    prune,
    prune_obert,
    prune_sparsegpt,
    pruning_report,
)
from sparsekit.pruning.masks.parametrization import mask_of
from sparsekit.pruning.sparsegpt import blockwise
from sparsekit.surgery import undo_on_failure
from sparsekit.training import GradualPruning


def blocks() -> nn.Module:
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                input = block(input)
            return input

    return Model()


DATA = [{"input": torch.linspace(-1, 1, 32).sin().reshape(4, 8)} for _ in range(2)]


def squares(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).square().mean()


#: Every way to prune, by name.
WAYS = {
    "magnitude": lambda model: prune(model, 0.5),
    "threshold": lambda model: prune(model, threshold=0.1),
    "wanda": lambda model: prune(model, 0.5, criterion="wanda", batches=DATA),
    "taylor": lambda model: prune(model, 0.5, criterion="taylor", batches=DATA, loss=squares),
    "sparsegpt": lambda model: prune_sparsegpt(model, 0.5, DATA),
    "obert": lambda model: prune_obert(model, 0.5, DATA, loss=squares),
    "movement": apply_movement,
    "allocation": lambda model: allocate_sparsity(model, 0.5, DATA, loss=squares),
    "keep_zeros": lambda model: keep_zeros(model, 0.05),
}


def state(model: nn.Module) -> tuple[list[type], dict[str, torch.Tensor]]:
    return [type(module) for module in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}


def same(one, other) -> bool:
    return (
        one[0] == other[0]
        and list(one[1]) == list(other[1])
        and all(torch.equal(one[1][k], other[1][k]) for k in one[1])
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_weight_that_is_computed_is_refused_and_nothing_is_masked(way):
    model = blocks()
    torch_prune.l1_unstructured(model.blocks[2][0], "weight", amount=0.5)
    before = state(model)
    with pytest.raises(
        ValueError, match=r"blocks\.2\.0\.weight is not a parameter but computed .*\.prune\.remove\(module, 'weight'\)"
    ):
        WAYS[way](model)
    assert same(state(model), before)
    torch_prune.remove(model.blocks[2][0], "weight")
    assert keep_zeros(model) == {"blocks.2.0": 0.5}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_without_values_is_refused(way):
    with torch.device("meta"):
        model = blocks()
    model.blocks[0] = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    with pytest.raises(ValueError, match=r"blocks\.1\.0\.weight has no values yet"):
        WAYS[way](model)
    assert not any(mask_of(module) is not None for module in model.modules())
    with pytest.raises(ValueError, match=r"blocks\.1\.0\.weight has no values yet"):
        pruning_report(model)
    lazy = nn.Sequential(nn.Linear(8, 8), nn.LazyLinear(8))
    with pytest.raises(ValueError, match=r"1\.weight has no values yet"):
        prune(lazy, 0.5, targets=["Linear", "LazyLinear"])
    assert prune(lazy, 0.5) == {"0": 0.5}


def test_gradual_pruning_adds_no_mask_where_one_cannot_be():
    from sparsekit.pruning import Schedule

    model = blocks()
    torch_prune.l1_unstructured(model.blocks[1][0], "weight", amount=0.5)
    pruning = GradualPruning(model, Schedule(0.5, end=10, frequency=5))
    for refused in (pruning.add_masks, lambda: pruning(0)):
        with pytest.raises(ValueError, match=r"blocks\.1\.0\.weight is not a parameter"):
            refused()
    assert not any(mask_of(module) is not None for module in model.modules())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("error", [torch.linalg.LinAlgError, KeyboardInterrupt])
def test_sparsegpt_pruning_that_ends_halfway_is_undone(monkeypatch, masked, error):
    model = blocks()
    if masked:
        prune(model, 0.25)
    before, parameters = state(model), set(model.parameters())
    plain, calls = blockwise.prune_and_round, []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise error
        return plain(*args, **kwargs)

    monkeypatch.setattr(blockwise, "prune_and_round", failing)
    with pytest.raises(error):
        prune_sparsegpt(model, 0.5, DATA)
    assert same(state(model), before)
    assert set(model.parameters()) == parameters
    monkeypatch.undo()
    prune_sparsegpt(model, 0.5, DATA)
    assert all(
        (module.weight == 0).float().mean() == 0.5 for module in model.modules() if isinstance(module, nn.Linear)
    )
    assert set(model.parameters()) == parameters, "optimizers hold them"


def change_and_fail(model: nn.Module) -> None:
    with undo_on_failure(model):
        layer = model.bert.encoder.layer[0]
        layer.attention.self.num_attention_heads = 1
        layer.attention.self.query = nn.Identity()
        del layer.output
        model.config.num_hidden_layers = 9
        prune(model, 0.9, ignore=["cls"])
        _ = layer.output.config


def test_undo_restores_modules_attributes_configs_and_masks():
    model = family("bert")
    prune(model, 0.5, ignore=["cls"])
    twin, config = copy.deepcopy(model), model.config.to_dict()
    with pytest.raises(AttributeError, match="output"):
        change_and_fail(model)
    assert same(state(model), state(twin))
    assert model.config.to_dict() == config
    assert model.bert.encoder.layer[0].attention.self.num_attention_heads == 4
    batch = batches(1)[0]
    assert torch.equal(model(**batch).logits, twin(**batch).logits)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_tied_heads_are_left_out_and_the_report_says_so(name):
    if name == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4}
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=50, **sizes))
    else:
        model = family(name)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    named = next(key for key, module in model.named_modules() if module is head)
    if name == "t5" and head.weight is not embedding.weight:
        head.weight = embedding.weight
    before = embedding.weight.clone()
    reached = prune(model, 0.8, targets=["Linear", "Conv1D"] if name == "gpt2" else ["Linear"])
    assert named not in reached
    assert reached
    assert torch.equal(embedding.weight, before)
    report = pruning_report(model)
    assert report.left_out[named].startswith("shares its weight with ")
    assert f"left out: {named} shares its weight with" in str(report)
    assert report.to_dict()["left_out"] == report.left_out
    with pytest.raises(ValueError, match=f"{named}.weight is shared with"):
        prune(model, 0.8, targets=[named])


def test_layers_without_weights_are_left_out():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 0))
    assert prune(model, 0.5) == {"0": 0.5}
    report = pruning_report(model)
    assert [layer.name for layer in report.layers] == ["0"]
    assert report.left_out == {"1": "has no weights"}
