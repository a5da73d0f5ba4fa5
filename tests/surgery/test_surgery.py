"""Heads, neurons and layers of forty architectures: removing equals zeroing, or is refused with nothing changed."""

import copy
import json

import pytest
import torch
from named_families import NAMED, named
from torch import nn

from sparsekit.distillation import drop_layers
from sparsekit.introspect.transformer_blocks import find_stacks
from sparsekit.pruning import prune_heads, prune_neurons, resize_to
from sparsekit.pruning.layers import oriented, weight_of
from sparsekit.pruning.structured.attention import find_attentions
from sparsekit.pruning.structured.neuron_groups import find_groups
from sparsekit.surgery.inputs import tiny_inputs


def outputs(model: nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(0)  # Reformer hashes at random
    with torch.no_grad():
        found = model(**tiny_inputs(model), **({"use_cache": False} if hasattr(model.config, "use_cache") else {}))
    return [value for value in found.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other) > 0
    for found, expected in zip(one, other, strict=True):
        single = found.dtype == torch.float32
        torch.testing.assert_close(found, expected, **({"rtol": 1e-3, "atol": 1e-4} if single else {}))


def zero_lost_columns(dense: nn.Module, narrow: nn.Module, layer: str) -> int:
    """Zero what a layer reads of units that the narrow model lost; how many inputs that are."""
    wide = dense.get_submodule(layer)
    lost = ~(weight_of(wide).T[:, None] == weight_of(narrow.get_submodule(layer)).T[None]).all(-1).any(1)
    oriented(wide, wide.weight.data)[:, lost] = 0.0
    return int(lost.sum())


def assert_made_again(model: nn.Module) -> None:
    """From its config as text and its weights."""
    config = type(model.config).from_dict(json.loads(json.dumps(model.config.to_dict(), default=str)))
    fresh = type(model)._from_config(config, attn_implementation="eager").to(next(model.parameters()).dtype).eval()
    resize_to(fresh, getattr(config, "sparsekit_widths", None) or {})
    fresh.load_state_dict(model.state_dict())
    assert_same(outputs(fresh), outputs(model))


def assert_refused(remove, model: nn.Module, message: str) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    config, objects, said = model.config.to_dict(), list(model.parameters()), outputs(model)
    with pytest.raises(ValueError, match=message):
        remove(model)
    assert model.config.to_dict() == config
    assert all(now is then for now, then in zip(model.parameters(), objects, strict=True))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(now, then) for now, then in zip(outputs(model), said, strict=True))


HEADS = [
    *("albert", "deberta", "deberta-v2", "falcon", "falcon-grouped", "falcon-multi-query", "gpt-oss", "lxmert"),
    *("markuplm", "modernbert", "mpnet", "neox", "phi3", "qwen2", "t5", "umt5", "wav2vec2", "xglm"),
]
HEADS_REFUSED = {
    "beit": "is a BeitAttention, from which no heads can be removed: its transformer blocks have a table",
    "bloom": "BloomAttention, from which no heads can be removed: .*slopes",
    "diffllama": "DiffLlamaAttention, from which no heads can be removed: it subtracts one half",
    "falcon-alibi": "FalconForCausalLM cannot run without these heads: .*; nothing was changed",
    "fsmt": "FSMTForConditionalGeneration cannot run without these heads: its code raised AssertionError",
    "led": "LEDDecoderAttention, from which no heads can be removed: its code takes the heads together",
    "longformer": "has the parameter query_global.weight",
    "moonshine": "MoonshineAttention, from which no heads can be removed: it reads one number of heads",
    "table-transformer": "TableTransformerModel cannot run without these heads|no heads can be removed",
    "trocr": "TrOCRAttention, from which no heads can be removed",
    "zamba2": "is shared with",
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_removed_as_if_they_said_nothing(name):
    dense = named(name)
    narrow = copy.deepcopy(dense)
    prune_heads(narrow, 0.5, criterion="magnitude")
    lost = [zero_lost_columns(dense, narrow, attention.output) for attention in find_attentions(dense)]
    assert sum(lost) > 0
    assert_same(outputs(narrow), outputs(dense))
    assert_made_again(narrow)


@pytest.mark.parametrize("name", HEADS_REFUSED)
def test_heads_that_cannot_be_removed_are_refused(name):
    assert_refused(lambda model: prune_heads(model, 0.5, criterion="magnitude"), named(name), HEADS_REFUSED[name])


NEURONS = ["albert", "convnext", "hubert", "lxmert", "moonshine", "t5", "wav2vec2"]
NEURONS_REFUSED = {
    "segformer": "SegformerModel cannot run without these neurons",
    "zamba2": "is shared with|cannot run|computes something else",
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons_are_removed_as_if_they_said_nothing(name):
    dense = named(name)
    narrow = copy.deepcopy(dense)
    prune_neurons(narrow, 0.5, criterion="magnitude")
    lost = [zero_lost_columns(dense, narrow, group.consumer) for group in find_groups(dense)]
    assert all(lost)
    assert_same(outputs(narrow), outputs(dense))
    assert_made_again(narrow)


@pytest.mark.parametrize("name", NEURONS_REFUSED)
def test_neurons_that_cannot_be_removed_are_refused(name):
    assert_refused(lambda model: prune_neurons(model, 0.5, criterion="magnitude"), named(name), NEURONS_REFUSED[name])


LAYERS = [
    *("bamba", "bart", "diffllama", "dpt", "gpt-neo", "led", "longformer"),
    *("markuplm", "modernbert", "moonshine", "reformer", "t5"),
]
LAYERS_REFUSED = {
    "beit": "BeitModel could not be made again from its config: .*out_features",
    "dinov2": "Dinov2Model could not be made again from its config: .*out_features",
    "dinov3": "DINOv3ViTModel could not be made again from its config: .*out_features",
    "lxmert": "LxmertModel could not be saved and loaded",
    "zamba2": "Zamba2ForCausalLM could not be saved and loaded",
}


def pass_on(_, args, kwargs, output):
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def kept_blocks(teacher: nn.Module, student: nn.Module, stack: str) -> list[int]:
    """Which of the teacher's blocks the student has, by their weights."""
    first = [torch.cat([p.flatten() for p in block.parameters()]) for block in teacher.get_submodule(stack)]
    own = [torch.cat([p.flatten() for p in block.parameters()]) for block in student.get_submodule(stack)]
    return [next(number for number, weights in enumerate(first) if torch.equal(weights, each)) for each in own]


@pytest.mark.parametrize("name", LAYERS)
def test_a_student_says_what_the_teacher_says_without_the_blocks(name):
    teacher = named(name)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    student = drop_layers(teacher, 2)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    for stack in find_stacks(teacher).values():
        kept = kept_blocks(teacher, student, stack)
        assert len(kept) == 2
        for number, block in enumerate(teacher.get_submodule(stack)):
            if number not in kept:
                block.register_forward_hook(pass_on, with_kwargs=True)
    if name != "reformer":  # whose blocks do not take the hidden states alone
        assert_same(outputs(student), outputs(teacher))
    if name not in ("bamba", "diffllama"):  # infinity in a config, which JSON has not; floats that only folders keep
        assert_made_again(student)


@pytest.mark.parametrize("name", ["xlm", "flaubert"])
def test_a_student_of_lists_beside_each_other(name):
    teacher = named(name)
    student = drop_layers(teacher, [1, 2])
    body = teacher.transformer
    for key in ("attentions", "layer_norm1", "ffns", "layer_norm2"):
        setattr(body, key, nn.ModuleList(getattr(body, key)[number] for number in (1, 2)))
    body.n_layers = 2
    assert_same(outputs(student), outputs(teacher))
    assert_made_again(student)


@pytest.mark.parametrize("name", LAYERS_REFUSED)
def test_layers_that_cannot_go_are_refused(name):
    assert_refused(lambda model: drop_layers(model, 2), named(name), LAYERS_REFUSED[name])


def test_stacks_of_an_encoder_and_a_decoder_by_name():
    student = drop_layers(named("bart"), {"decoder": [0]})
    assert (len(student.model.encoder.layers), len(student.model.decoder.layers)) == (4, 1)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (4, 1)
    t5 = drop_layers(named("t5"), {"encoder": 3, "decoder": 2})
    assert (t5.config.num_layers, t5.config.num_decoder_layers) == (3, 2)
    assert_made_again(t5)
    prompt = {"input_ids": torch.tensor([[5, 6, 7]]), "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(t5.generate(**prompt, use_cache=True), t5.generate(**prompt, use_cache=False))


def test_the_first_block_stays_where_it_is_special():
    for name, kept in (("t5", [0, 3]), ("modernbert", [0, 3]), ("bart", [1, 3])):
        teacher = named(name)
        student = drop_layers(teacher, 2)
        assert [kept_blocks(teacher, student, stack) for stack in find_stacks(teacher).values()] in ([kept], [kept] * 2)


def test_kinds_of_blocks_that_a_config_lists_go_where_they_are_kept():
    teacher = named("qwen3-next")
    student = drop_layers(teacher, [0, 3])
    assert student.config.layer_types == ["linear_attention", "full_attention"]
    assert_made_again(student)
    assert drop_layers(teacher, 2).config.layer_types == ["linear_attention", "full_attention"]


def test_all_named_families_are_tried():
    tried = {
        *HEADS,
        *HEADS_REFUSED,
        *NEURONS,
        *NEURONS_REFUSED,
        *LAYERS,
        *LAYERS_REFUSED,
        "xlm",
        "flaubert",
        "qwen3-next",
    }
    assert set(NAMED) == tried
