"""Students cut from teachers, layer maps by name, features of modules."""

import copy

import pytest
import torch
import transformers
from torch import nn

from sparsekit.distillation import Features, LayerMap, Teacher, drop_layers
from sparsekit.pruning import prune_neurons, resize_to

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 24}
IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))


def bert(layers: int = 6) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=layers, **SIZES)
    return transformers.BertModel(config).eval()


def llama(layers: int = 4) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=layers, num_key_value_heads=2, **SIZES)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(("layers", "kept"), [(3, [1, 3, 5]), (1, [5]), ([0, 4], [0, 4]), (6, list(range(6)))])
def test_a_student_runs_the_blocks_it_kept(layers, kept):
    teacher = bert()
    before = copy.deepcopy(teacher.state_dict())
    student = drop_layers(teacher, layers)
    assert student.config.num_hidden_layers == len(student.encoder.layer) == len(kept)
    assert [block.attention.self.layer_idx for block in student.encoder.layer] == list(range(len(kept)))
    assert not student.training
    assert student.config is student.encoder.config
    own = teacher.encoder.layer
    teacher.encoder.layer = nn.ModuleList(own[number] for number in kept)
    torch.testing.assert_close(student(IDS)[0], teacher(IDS)[0])
    teacher.encoder.layer = own
    assert teacher.config.num_hidden_layers == 6
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), "weights are copies"


def test_hidden_states_fit_the_even_layer_map():
    teacher = bert()
    teacher(IDS, output_hidden_states=True)  # leaves hooks on the blocks
    student = drop_layers(teacher, 3)
    theirs = teacher(IDS, output_hidden_states=True).hidden_states[1:]
    mine = student(IDS, output_hidden_states=True).hidden_states[1:]
    own, other = LayerMap.even(3, 6)(mine, theirs)
    assert len(own) == len(other) == 3
    assert len(theirs) == 6


def test_a_student_generates_and_is_saved_and_loaded(tmp_path):
    student = drop_layers(llama(), 2)
    prompt = {"input_ids": IDS[:1], "attention_mask": torch.ones(1, 6, dtype=torch.int64)}
    cached = student.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert torch.equal(cached, student.generate(**prompt, max_new_tokens=5, do_sample=False, use_cache=False))
    student.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(IDS).logits, student(IDS).logits)


def test_entries_for_each_block_follow():
    kinds = ["sliding_attention", "full_attention"] * 2
    sliding = {"layer_types": kinds, "use_sliding_window": True, "sliding_window": 4}
    config = transformers.Qwen2Config(num_hidden_layers=4, num_key_value_heads=2, **sliding, **SIZES)
    student = drop_layers(transformers.Qwen2ForCausalLM(config), [0, 2, 3])
    assert student.config.layer_types == [kinds[0], kinds[2], kinds[3]]
    assert student(IDS).logits.shape == (2, 6, 50)


def test_an_encoder_inside_a_model_and_what_is_frozen():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = bert(4)
            self.heads = nn.ModuleList(nn.Linear(32, 2) for _ in range(3))
            self.encoder.embeddings.requires_grad_(False)

    model = Classifier()
    student = drop_layers(model, 2)
    assert (len(student.encoder.encoder.layer), len(student.heads)) == (2, 3)
    assert student.encoder.config.num_hidden_layers == 2
    trainable = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert trainable
    assert not any(name.startswith("encoder.embeddings") for name in trainable)
    frozen = drop_layers(Teacher(model).model, 2)
    assert all(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_student_of_uneven_widths_is_made_again():
    teacher = bert(4)
    batches = [{"input_ids": IDS}]
    left = prune_neurons(teacher, 0.5, scope="global", batches=batches)
    assert len(set(left.values())) > 1
    prune_neurons(teacher, 0.3, batches=batches, targets=["encoder.layer.3"])
    student = drop_layers(teacher, 2)
    fresh = transformers.BertModel(transformers.BertConfig.from_dict(student.config.to_dict())).eval()
    resize_to(fresh, student.config.sparsekit_widths).load_state_dict(student.state_dict())
    torch.testing.assert_close(fresh(IDS)[0], student(IDS)[0])


def test_students_that_cannot_be():
    for layers, message in (
        (7, "a student of 7 layers cannot follow a teacher of 6"),
        (0, "a student of 0 layers"),
        ([], r"ascending numbers of the teacher's layers 0 to 5, got \[\]"),
        ([2, 1], "ascending numbers"),
        ([0, 6], "ascending numbers"),
        ([-1], "ascending numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            drop_layers(bert(), layers)
    with pytest.raises(ValueError, match="has no nn.ModuleList of transformer blocks"):
        drop_layers(nn.Sequential(nn.Linear(2, 2)), 1)
    config = transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=24, num_layers=4, num_heads=4)
    both = transformers.T5Model(copy.deepcopy(config))  # an encoder alone changes its config
    with pytest.raises(ValueError, match="layer 1 cannot take the place of layer 0: .*relative_attention_bias"):
        drop_layers(transformers.T5EncoderModel(config), [1, 3])
    with pytest.raises(
        ValueError, match=r"layers names the stacks \['middle'\]; the model has the stacks encoder, decod"
    ):
        drop_layers(both, {"middle": 2})
    with pytest.raises(ValueError, match="the model has one stack of layers"):
        drop_layers(bert(), {"encoder": 2})


def test_features_are_what_modules_return():
    teacher, student = bert(4), drop_layers(bert(4), 2)
    names = [f"encoder.layer.{number}" for number in (3, 1)]
    with Features(teacher, names) as theirs, Features(student, ["encoder.layer.1", "pooler"]) as mine:
        expected = teacher(IDS, output_hidden_states=True).hidden_states
        student(IDS)
    torch.testing.assert_close(theirs.tensors, [expected[4], expected[2]])
    assert torch.equal(theirs["encoder.layer.1"], theirs.tensors[1])
    assert mine["encoder.layer.1"].requires_grad
    before = theirs.tensors[0]
    teacher(IDS[:1])
    assert theirs.tensors[0] is before, "nothing is recorded after the block"
    rules = {"re:encoder\\.layer\\.(\\d+)": "encoder.layer.3"}
    own, other = LayerMap.by_name(rules, mine.names, theirs.names)(mine.tensors, theirs.tensors)
    assert own == [mine["encoder.layer.1"]]
    assert other == [theirs["encoder.layer.3"]]


def test_errors_of_features_and_maps_by_name():
    model = bert(1)
    with pytest.raises(TypeError, match="got the string 'pooler'"):
        Features(model, "pooler")
    for names, message in (([], "at least one"), (["pooler"] * 2, "each once"), (["poolr"], "no module 'poolr'")):
        with pytest.raises(ValueError, match=message):
            Features(model, names)
    with Features(model, ["pooler", "encoder"]) as features, pytest.raises(ValueError, match="pooler has not run"):
        _ = features.tensors
    with pytest.raises(KeyError):
        _ = features["embeddings"]
    with Features(model, ["encoder"]), pytest.raises(TypeError, match="must return a tensor or a tuple"):
        model(IDS)
    assert not model.encoder._forward_hooks
    with pytest.raises(ValueError, match="a is to follow 'c'; the teacher's are x, y"):
        LayerMap.by_name({"a": "c"}, ["a", "b"], ["x", "y"])
    with pytest.raises(ValueError, match="no rule of z fits any of a, b"):
        LayerMap.by_name({"z": "x"}, ["a", "b"], ["x", "y"])
