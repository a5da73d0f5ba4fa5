"""Neurons that are removed: narrow models equal dense ones with those units at zero, and come back from files."""

import copy

import pytest
import torch
import transformers
from families import FAMILIES, batches, family, logits, made_again, parameters, rows_lost, zero_inputs
from torch import nn

from sparsekit import finalize, prune
from sparsekit.pruning import NeuronGroup, prune_heads, prune_neurons, resize_to, shapes_of
from sparsekit.pruning.structured.neuron_groups import find_groups, units_of
from sparsekit.pruning.structured.unit_scores import loss_changes, mean_activations


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 10), nn.GELU(), nn.Dropout(), nn.Linear(10, 4))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_narrow_model_is_the_dense_one_with_its_units_at_zero(name):
    dense, batch = family(name), batches(1)[0]
    narrow = copy.deepcopy(dense)
    modules = dict(narrow.named_modules())
    left = prune_neurons(narrow, 0.4, batches=batches())
    groups = find_groups(dense)
    assert list(left) == [group.consumer for group in groups]
    assert len(groups) == 2
    fewer = 0
    for group in groups:
        count = units_of(dense, group).count
        lost = rows_lost(dense, narrow, group.producers[0], count)
        assert len(lost) == round(0.4 * count) == count - left[group.consumer]
        zero_inputs(dense, group.consumer, lost)
        made = [dense.get_submodule(layer) for layer in group.producers]
        values_each = sum((32 + (layer.bias is not None)) * group.fused for layer in made) + 32
        fewer += len(lost) * values_each
    assert parameters(dense) - parameters(narrow) == fewer
    torch.testing.assert_close(logits(narrow, batch), logits(dense, batch))
    assert dict(narrow.named_modules()) == modules, "the same objects"
    assert getattr(narrow.config, "sparsekit_widths", None) is None, "the config has an entry for it"
    torch.testing.assert_close(logits(made_again(narrow), batch), logits(narrow, batch))


def test_even_widths_load_by_transformers_own_means(tmp_path):
    model, batch = family("llama"), batches(1)[0]
    prune_neurons(model, 0.5, criterion="magnitude")
    assert model.config.intermediate_size == 12
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    torch.testing.assert_close(logits(loaded.eval(), batch), logits(model, batch))


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_uneven_widths_come_back(name):
    model, batch = family(name), batches(1)[0]
    left = prune_neurons(model, 0.5, scope="global", criterion="taylor", batches=batches(), minimum=2)
    assert len(set(left.values())) == 2
    prune_heads(model, heads={0: [0, 1]})
    assert set(model.config.sparsekit_widths) <= set(shapes_of(model))
    fresh = made_again(model)
    assert shapes_of(fresh) == shapes_of(model)
    torch.testing.assert_close(logits(fresh, batch), logits(model, batch))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_encoder_and_a_decoder_with_copies_of_the_config(scope):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    config = transformers.T5Config(vocab_size=50, decoder_start_token_id=0, **sizes)
    model, batch = transformers.T5ForConditionalGeneration(config).double().eval(), batches(1)[0]
    left = prune_neurons(model, 0.5, scope=scope, criterion="magnitude")
    assert (model.config.d_ff == 12) == (set(left.values()) == {12}) == (scope == "layer")
    torch.testing.assert_close(logits(made_again(model), batch), logits(model, batch))


def test_uneven_in_some_layers_only_and_the_config_of_an_inner_model():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = family("bert").bert
            self.head = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2)).double()

        def forward(self, **batch):
            return self.head(self.encoder(**batch)[0])

    model = Classifier()
    left = prune_neurons(model, 0.25, criterion="magnitude", targets=["encoder.encoder.layer.1", "head"])
    assert left == {"encoder.encoder.layer.1.output.dense": 18, "head.2": 6}
    assert model.encoder.config.intermediate_size == 24
    assert model.encoder.config.sparsekit_widths == {
        "encoder.layer.1.intermediate.dense": [18, 32],
        "encoder.layer.1.output.dense": [32, 18],
    }
    assert prune_neurons(model, threshold=0.0, criterion="magnitude", ignore=["head"]) == {
        "encoder.encoder.layer.0.output.dense": 24,
        "encoder.encoder.layer.1.output.dense": 18,
    }


def test_scores_equal_plain_references_without_padding():
    model, found = family("bert"), []
    groups = find_groups(model)
    units = [units_of(model, group) for group in groups]
    inputs = []
    handle = model.get_submodule(groups[1].consumer).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for batch in batches():
        output = model(**batch)
        (gradient,) = torch.autograd.grad(output.loss, inputs[-1])
        tokens = batch["attention_mask"].unsqueeze(-1)
        found.append((inputs[-1] * gradient * tokens).sum(1).abs().sum(0))
    handle.remove()
    rows = torch.cat([x[b["attention_mask"].bool()] for x, b in zip(inputs, batches(), strict=True)])
    activations = mean_activations(model, units, batches(), None)
    torch.testing.assert_close(activations[groups[1].consumer], rows.abs().mean(0).detach())
    changes = loss_changes(model.requires_grad_(False), units, batches(), None)
    torch.testing.assert_close(changes[groups[1].consumer], sum(found).detach() / 2)
    assert all(parameter.grad is None for parameter in model.parameters())
    other = batches()
    for batch in other:
        batch["input_ids"][batch["attention_mask"] == 0] = 3
    for name, score in mean_activations(model, units, other, None).items():
        assert torch.equal(score, activations[name])


def test_what_counts_nothing_goes_first():
    model = mlp()
    with torch.no_grad():
        model[5].weight[:, 7] = 0.0
        model[0].weight[3], model[0].bias[3] = 0.0, 0.0  # tanh(0) = 0
        model[2].weight[:, 3] = 0.0
    given = [{"input": torch.randn(16, 6)}]
    expected = model.eval()(given[0]["input"])
    narrow = copy.deepcopy(model)
    taylor = {"criterion": "taylor", "loss": lambda m, batch: m(**batch).square().mean(), "batches": given}
    assert prune_neurons(narrow, threshold=1e-12, **taylor) == {"2": 7, "5": 9}
    torch.testing.assert_close(narrow(given[0]["input"]), expected)
    assert prune_neurons(copy.deepcopy(model), threshold=1e-12, batches=given) == {"2": 7, "5": 10}
    assert prune_neurons(copy.deepcopy(model), threshold=1e9, batches=given, minimum=3) == {"2": 3, "5": 3}
    assert prune_neurons(model, 0.95, criterion="magnitude", scope="global", minimum=2) == {"2": 2, "5": 2}


def test_groups_that_are_given_and_biases_that_are_not():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6, bias=False), nn.Linear(4, 6)
            self.c = nn.Linear(6, 4)

        def forward(self, input):
            return self.c(self.a(input).sigmoid() * self.b(input))

    torch.manual_seed(0)
    model, x = Gated(), torch.randn(5, 4)
    group = NeuronGroup(producers=["a", "b"], consumer="c")
    dense = copy.deepcopy(model)
    model.a.weight.requires_grad_(False)
    assert prune_neurons(model, 0.5, batches=[{"input": x}], groups=[group]) == {"c": 3}
    zero_inputs(dense, "c", rows_lost(dense, model, "b", 6))
    torch.testing.assert_close(model(x), dense(x))
    assert not model.a.weight.requires_grad
    assert model.b.weight.requires_grad
    assert shapes_of(model) == {"a": [3, 4], "b": [3, 4], "c": [4, 3]}
    for groups, message in (
        ([NeuronGroup(["a"], "b")], "a must have 4 outputs for the 4 units that b reads, got 3"),
        ([group, NeuronGroup(["b"], "c")], r"groups must name each consumer once, got \['c', 'c'\]"),
        ([group, NeuronGroup(["c", "b"], "a")], "b is named twice"),
        ([NeuronGroup(["a"], "d")], "the model has no module 'd'"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_neurons(model, 0.5, criterion="magnitude", groups=groups)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "give either fraction or threshold"),
        ({"fraction": 0.5, "threshold": 1.0}, ValueError, "give either fraction or threshold"),
        ({"fraction": 1.0}, ValueError, r"fraction must be in \[0, 1\), got 1.0"),
        ({"fraction": 0.5, "scope": "row"}, ValueError, "scope must be one of layer, global, got 'row'"),
        ({"fraction": 0.5, "minimum": 0}, ValueError, "minimum must be at least 1"),
        ({"fraction": 0.5, "criterion": "luck"}, ValueError, "criterion must be one of magnitude, taylor, activation"),
        ({"fraction": 0.5}, ValueError, "criterion 'activation' needs calibration batches"),
        ({"fraction": 0.5, "criterion": "magnitude", "batches": [1]}, ValueError, "'magnitude' needs no batches"),
        ({"fraction": 0.5, "batches": [1], "loss": len}, ValueError, "'activation' takes no loss"),
        ({"fraction": 0.5, "criterion": "magnitude", "targets": ["fc1"]}, ValueError, "matches no module"),
        ({"fraction": 0.5, "criterion": "magnitude", "ignore": "0"}, TypeError, "ignore must be a list"),
        ({"fraction": 0.5, "criterion": "magnitude", "ignore": ["Linear"]}, ValueError, "leave none of 2, 5"),
        ({"fraction": 0.5, "criterion": "magnitude", "groups": []}, ValueError, "found no MLP"),
    ],
)
def test_bad_arguments_leave_the_model_alone(arguments, error, message):
    model = mlp()
    with pytest.raises(error, match=message):
        prune_neurons(model, **arguments)
    assert shapes_of(model) == shapes_of(mlp())


def test_layers_that_cannot_shrink_are_refused():
    model = mlp()
    prune(model, 0.5, targets=["2"])
    with pytest.raises(ValueError, match=r"2 is masked or otherwise parametrized; call finalize\(model\)"):
        prune_neurons(model, 0.5, criterion="magnitude")
    finalize(model)
    assert prune_neurons(model, 0.5, criterion="magnitude") == {"2": 4, "5": 5}
    tied = nn.ModuleList([mlp(), nn.Linear(6, 8)])
    tied[1].weight = tied[0][0].weight
    with pytest.raises(ValueError, match=r"0\.0\.weight is shared with 1; put '0\.0' into ignore"):
        prune_neurons(tied, 0.5, criterion="magnitude")
    quantized = mlp()
    quantized[0].weight = nn.Parameter(torch.ones(8, 6, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"0\.weight must be a plain floating parameter, got .* torch\.int8"):
        prune_neurons(quantized, 0.5, criterion="magnitude")
    replaced = family("bert")
    replaced.bert.encoder.layer[1].intermediate.dense = nn.Identity()
    with pytest.raises(TypeError, match=r"layer\.1\.intermediate\.dense must be a torch\.nn\.Linear .*, got Identity"):
        prune_neurons(replaced, 0.5, criterion="magnitude")
    normed = family("opt").model.decoder.layers[0]
    normed.inner = nn.LayerNorm(24)
    with pytest.raises(ValueError, match="inner has parameters for each of the 24 units that fc2 reads"):
        prune_neurons(normed, 0.5, criterion="magnitude")
    with pytest.raises(ValueError, match="found no MLP"):
        prune_neurons(nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1), nn.Linear(2, 2)), 0.5, criterion="magnitude")
    with torch.device("meta"), pytest.raises(ValueError, match=r"0\.weight has no values yet"):
        prune_neurons(mlp(), 0.5, criterion="magnitude")
    broken = mlp()
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="2: scores hold inf or NaN"):
        prune_neurons(broken, 0.5, criterion="magnitude")


def test_layers_that_do_not_run_and_losses_that_are_none():
    idle = nn.ModuleDict({"used": nn.Linear(6, 2), "idle": mlp()})
    idle.forward = idle["used"].forward
    with pytest.raises(ValueError, match=r"idle\.2, idle\.5 did not run on the calibration batches"):
        prune_neurons(idle, 0.5, batches=[{"input": torch.randn(2, 6)}])
    with pytest.raises(ValueError, match=r"must return a scalar tensor that depends on the model, got shape \[2, 4\]"):
        prune_neurons(mlp(), 0.5, criterion="taylor", batches=[{"input": torch.randn(2, 6)}], loss=lambda m, b: m(**b))


def test_resizing_refuses_what_it_cannot_do():
    for shapes, error, message in (
        ({"9": [1, 1]}, ValueError, "the model has no module '9'"),
        ({"1": [1, 1]}, TypeError, "1 must be a torch.nn.Linear"),
        ({"0": [0, 6]}, ValueError, "both above 0"),
        ({"0": [2.5, 6]}, ValueError, "both above 0"),
        ({"0": "86"}, ValueError, "both above 0"),
        ({"0": [10**12, 6]}, ValueError, r"is to get shape \[1000000000000, 6\], and has only \[8, 6\]"),
    ):
        model = mlp()
        with pytest.raises(error, match=message):
            resize_to(model, shapes)
        assert shapes_of(model) == shapes_of(mlp())
    with torch.device("meta"):
        empty = mlp()
    narrow = mlp()
    prune_neurons(narrow, 0.5, criterion="magnitude")
    resize_to(empty, shapes_of(narrow)).load_state_dict(narrow.state_dict(), assign=True)
    x = torch.randn(2, 6)
    torch.testing.assert_close(empty.eval()(x), narrow.eval()(x))
