"""Folders of models with state beyond their tensors, or state that differs from their configuration."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from families import batches, family
from test_checkpoint_transformers import bert, contents, sparse_bert
from test_checkpoint_transformers import logits as of_bert
from torch import nn
from torch.nn.modules import module as registration

import sparsekit
from sparsekit import load, save
from sparsekit.checkpoint import shards
from sparsekit.checkpoint.module_state import can_hold, restore
from sparsekit.checkpoint.transformers.module_budget import enough_for
from sparsekit.distillation.students import drop_layers
from sparsekit.pruning import prune_heads, prune_neurons

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "head_dim": 8, "pad_token_id": 0}


@pytest.fixture(autouse=True)
def _unfilled_memory_shows():
    """Fill uninitialized memory with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def made(config, cls=transformers.AutoModelForCausalLM) -> nn.Module:
    torch.manual_seed(0)
    return cls.from_config(config).eval()


def falcon_h1() -> nn.Module:
    sizes = {"num_hidden_layers": 2, "num_key_value_heads": 2, "intermediate_size": 48, "mamba_d_ssm": 64}
    mamba = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
    multipliers = [0.35, 0.25, 0.18, 0.5, 0.3]
    return made(transformers.FalconH1Config(**SMALL, **sizes, **mamba, ssm_multipliers=multipliers))


def diffllama() -> nn.Module:
    sizes = {"num_hidden_layers": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    return made(transformers.DiffLlamaConfig(**SMALL, **sizes))


def llama4() -> nn.Module:
    sizes = {"num_hidden_layers": 2, "num_key_value_heads": 2, "intermediate_size": 24, "intermediate_size_mlp": 40}
    return made(transformers.Llama4TextConfig(**SMALL, **sizes, num_local_experts=4, num_experts_per_tok=1))


def openai_gpt() -> nn.Module:
    config = transformers.OpenAIGPTConfig(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    return made(config)


def answers(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=batches(1)[0]["input_ids"]).logits


def opened(model: nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    """Outputs of a saved model after `load` and after `from_pretrained`."""
    save(model, folder)
    return {"load": answers(load(folder)), "from_pretrained": answers(type(model).from_pretrained(folder))}


def comes_back(model: nn.Module, folder: Path) -> None:
    expected = answers(model)
    for way, found in opened(model, folder).items():
        assert torch.equal(found, expected), way


def arrays_of(folder: Path) -> set[str]:
    return set(json.loads((folder / "sparsekit.json").read_text())["arrays"])


def test_buffers_that_a_module_above_fills(tmp_path):
    model = falcon_h1()
    comes_back(model, tmp_path / "model")
    assert not any("mup_vector" in name for name in arrays_of(tmp_path / "model")), "computed anew"


def test_buffers_that_were_changed_are_stored(tmp_path):
    model = falcon_h1()
    model.model.layers[1].mamba.mup_vector *= 0.9
    comes_back(model, tmp_path / "model")
    assert "model.layers.1.mamba.mup_vector" in arrays_of(tmp_path / "model")
    assert "model.layers.0.mamba.mup_vector" not in arrays_of(tmp_path / "model")


def test_buffers_of_a_model_that_was_cast(tmp_path):
    model = family("llama").bfloat16()
    assert model.model.rotary_emb.inv_freq.dtype == torch.bfloat16
    comes_back(model, tmp_path / "model")


def test_numbers_that_depend_on_the_old_place_of_a_layer(tmp_path):
    model = drop_layers(diffllama(), [1, 3])
    comes_back(model, tmp_path / "model")
    assert "model.layers.0.self_attn.lambda_init" in arrays_of(tmp_path / "model")
    save(load(tmp_path / "model"), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "model")
    body = transformers.AutoModel.from_pretrained(tmp_path / "model")
    assert body.layers[1].self_attn.lambda_init == model.model.layers[1].self_attn.lambda_init


def test_a_dense_folder_has_no_place_for_numbers(tmp_path):
    model = drop_layers(diffllama(), [1, 3])
    with pytest.raises(ValueError, match=r"lambda_init'.* are not what the configuration leads to.*dense=False"):
        save(model, tmp_path / "model", dense=True)
    model = bert().bfloat16()
    model.bert.embeddings.dropout.p = 0.0
    save(model, tmp_path / "model", dense=True)
    save(falcon_h1().bfloat16(), tmp_path / "other", dense=True)


def test_padding_that_was_named_once_the_model_was_made(tmp_path):
    """`model.config.pad_token_id = tokenizer.eos_token_id` is how people give a language model padding."""
    model = family("llama")
    assert model.model.padding_idx is None
    model.config.pad_token_id = 2
    comes_back(model, tmp_path / "model")
    assert "model.padding_idx" in arrays_of(tmp_path / "model")
    assert load(tmp_path / "model").model.padding_idx is None
    save(model, tmp_path / "dense", dense=True)


def test_numbers_that_were_changed(tmp_path):
    model = bert().eval()
    model.bert.encoder.layer[0].output.LayerNorm.eps = 0.25
    model.bert.encoder.layer[1].attention.self.scaling *= 2
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.bert.encoder.layer[0].output.LayerNorm.eps == 0.25
    assert torch.equal(of_bert(loaded), of_bert(model))


@pytest.mark.parametrize("make", [lambda: family("gpt2").float(), openai_gpt, llama4], ids=["gpt2", "openai", "llama4"])
def test_models_that_lost_neurons(tmp_path, make):
    model = make()
    prune_neurons(model, 0.5, criterion="magnitude")
    comes_back(model, tmp_path / "model")


@pytest.mark.parametrize("layers", [[0], [0, 1]])
def test_gpt2_without_some_heads(tmp_path, layers):
    model = family("gpt2").float()
    prune_heads(model, heads={layer: [1, 3] for layer in layers})
    comes_back(model, tmp_path / "model")
    assert load(tmp_path / "model").transformer.h[0].attn.num_heads == 2


def test_tensors_without_elements(tmp_path):
    def fresh() -> nn.Module:
        return nn.Sequential(nn.Linear(40, 0), nn.Linear(0, 3))

    model = fresh()
    model.register_buffer("none", torch.zeros(2, 0, dtype=torch.int64))
    save(model, tmp_path / "model")
    other = fresh()
    other.register_buffer("none", torch.zeros(2, 0, dtype=torch.int64))
    loaded = load(tmp_path / "model", model=other)
    assert torch.equal(loaded(torch.ones(2, 40)), model(torch.ones(2, 40)))
    assert loaded.none.shape == (2, 0)
    assert loaded[0].weight.dtype == torch.float32


def test_dinov3_comes_back(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.DINOv3ViTConfig(**sizes, image_size=32, patch_size=16, num_register_tokens=0)
    model = made(config, transformers.AutoModel)
    save(model, tmp_path / "model")
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(pixels)[0]
        for found in (load(tmp_path / "model"), type(model).from_pretrained(tmp_path / "model")):
            assert torch.equal(found(pixels)[0], expected)


def test_convolutions_with_weight_norm_come_back(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    layers = {"conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_conv_pos_embedding_groups": 2}
    model = made(transformers.Wav2Vec2Config(**sizes, **layers), transformers.AutoModel)
    save(model, tmp_path / "model")
    sound = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "model")(sound)[0], model(sound)[0])


def deeper_than_said(model: nn.Module) -> None:
    model.bert.encoder.layer.append(copy.deepcopy(model.bert.encoder.layer[0]))


def no_longer_known(model: nn.Module) -> None:
    model.config.num_hidden_layers = 10_000


def another_activation(model: nn.Module) -> None:
    model.bert.encoder.layer[0].intermediate.intermediate_act_fn = nn.ReLU()


def too_large(model: nn.Module) -> None:
    model.bert.encoder.layer[0].attention.self.all_head_size = 2**63


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (deeper_than_said, "nothing was saved.*sparse weight for 'bert.encoder.layer.2.*the model has nothing"),
        (no_longer_known, r"nothing was saved.*: config.json describes no model that can be made: num_hidden_layers"),
        (
            another_activation,
            "nothing was saved.*act_fn is a ReLU, and a FusedActivation in the model that config.json",
        ),
        (
            too_large,
            "all_head_size is 9223372036854775808 in this model and something else in one made from its config",
        ),
    ],
)
def test_what_no_reader_would_open_is_not_saved(tmp_path, change, message):
    model = sparse_bert()
    save(model, tmp_path / "model")
    before = contents(tmp_path / "model")
    change(model)
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / "model")
    assert contents(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_that_were_written_wrongly_are_noticed(tmp_path, monkeypatch):
    original = shards.save_file

    def damaged(tensors, path, **arguments):
        original(tensors, path, **arguments)
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

    save(bert(), tmp_path / "model")
    before = contents(tmp_path / "model")
    monkeypatch.setattr(shards, "save_file", damaged)
    with pytest.raises(ValueError, match="has another checksum than sparsekit.json"):
        save(bert(), tmp_path / "model")
    assert contents(tmp_path / "model") == before


def test_a_model_of_ones_own_class_comes_back(tmp_path):
    class Own(transformers.BertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.bert = transformers.BertModel(config)
            self.post_init()

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids, attention_mask)

    model = Own(bert().config).eval()
    model.bert.encoder.layer[0].output.LayerNorm.eps = 0.25
    save(model, tmp_path / "model")
    expected = of_bert(model)
    assert torch.equal(of_bert(Own.from_pretrained(tmp_path / "model")), expected)
    assert torch.equal(of_bert(load(tmp_path / "model", model=Own(model.config).eval())), expected)
    with pytest.raises(ValueError, match="have no 'Own' for 'bert'; give model="):
        load(tmp_path / "model")


def test_a_model_of_ones_own_class_that_takes_more_than_a_configuration(tmp_path):
    class Own(transformers.BertModel):
        def __init__(self, config, outputs):
            super().__init__(config)
            self.head = nn.Linear(config.hidden_size, outputs)

    model = Own(bert().config, 3).eval()
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model", model=Own(model.config, 3).eval())
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert torch.equal(of_bert(loaded), of_bert(model))


def test_names_of_state_that_a_folder_may_not_set(tmp_path):
    model = bert()
    save(model, tmp_path / "model")
    for name in (
        "bert.training",
        "bert._is_full_backward_hook",
        "bert.encoder.config",
        "bert.none.scaling",
        "bert.dtype",
    ):
        assert not can_hold(model, name, torch.int64, ()), name
    scaling = "bert.encoder.layer.0.attention.self.scaling"
    assert can_hold(model, scaling, torch.float64, ())
    assert not can_hold(model, scaling, torch.float64, (1,))
    assert not can_hold(model, scaling, torch.float32, ())
    sparse = sparsekit.SparseLinear(3, 2)
    assert not can_hold(nn.Sequential(sparse), "0.in_features", torch.int64, ())
    assert not can_hold(nn.Sequential(sparse), "0.packed", torch.uint8, (64,))


@pytest.mark.parametrize("key", ["num_hidden_groups", "inner_group_num", "num_hidden_layers", "num_labels"])
def test_a_configuration_that_asks_for_far_more_modules_than_there_are_weights(tmp_path, key):
    config = transformers.AlbertConfig(vocab_size=50, embedding_size=8, hidden_size=8, num_attention_heads=2)
    config.update({"intermediate_size": 8, "num_hidden_layers": 2})
    save(transformers.AlbertModel(config), tmp_path / "model")
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**values, key: 10**8}))
    with pytest.raises(ValueError, match=r"has more than \d+ modules, parameters and buffers|at most 1000"):
        load(tmp_path / "model")
    assert not registration._global_module_registration_hooks


def test_modules_that_another_thread_makes_are_not_counted():
    with enough_for(0):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: nn.Sequential(*(nn.ReLU() for _ in range(6_000)))).result()
        with pytest.raises(ValueError, match="more than 5000"):
            nn.Sequential(*(nn.ReLU() for _ in range(6_000)))


def test_sparse_layers_where_the_configuration_has_a_conv1d(tmp_path):
    model = family("gpt2").float()
    prune_neurons(model, 0.5, criterion="magnitude")
    for block in model.transformer.h:
        for owner, name in ((block.mlp, "c_fc"), (block.mlp, "c_proj"), (block.attn, "c_attn")):
            conv1d = getattr(owner, name)
            weight = conv1d.weight.detach().T * (torch.rand(conv1d.nf, conv1d.nx) > 0.7)
            linear = nn.Linear(conv1d.nx, conv1d.nf)
            linear.weight, linear.bias = nn.Parameter(weight), conv1d.bias
            setattr(owner, name, sparsekit.SparseLinear.from_linear(linear))
    comes_back(model, tmp_path / "model")
    assert isinstance(load(tmp_path / "model").transformer.h[1].mlp.c_fc, sparsekit.SparseLinear)


def test_settings_of_generation_that_no_reader_would_take_are_not_saved(tmp_path):
    model = family("llama")
    save(model, tmp_path / "model")
    before = contents(tmp_path / "model")
    model.generation_config.num_return_sequences = 3
    with pytest.raises(ValueError, match="nothing was saved.*no settings for generation"):
        save(model, tmp_path / "model")
    assert contents(tmp_path / "model") == before


def test_dense_folders_of_models_whose_configuration_was_edited(tmp_path):
    model = family("llama")
    model.resize_token_embeddings(70)
    save(model, tmp_path / "resized", dense=True)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "resized").lm_head.out_features == 70
    model = bert()
    model.config.pad_token_id = 5
    model.config.attention_probs_dropout_prob = 0.3
    save(model, tmp_path / "edited", dense=True)
    model.config.layer_norm_eps = 1e-3
    model.bert.embeddings.LayerNorm.eps = 1e-2
    with pytest.raises(ValueError, match=r"LayerNorm.eps"):
        save(model, tmp_path / "edited", dense=True)


class OfOnesOwn(transformers.BertModel):
    def __init__(self, config: transformers.BertConfig, extra: int) -> None:
        super().__init__(config)
        self.extra = extra


def test_a_dense_folder_of_a_class_that_is_made_of_more_than_its_configuration(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    save(OfOnesOwn(transformers.BertConfig(vocab_size=50, **sizes), 3), tmp_path / "model", dense=True)
    assert (tmp_path / "model" / "model.safetensors").exists()


class WithState(nn.Module):
    def __init__(self, *, as_buffer: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        if as_buffer:
            self.register_buffer("threshold", torch.tensor(99.0, dtype=torch.float64))
        else:
            self.threshold = 0.5


def test_a_folder_sets_no_attribute_of_a_model_of_ones_own(tmp_path):
    save(WithState(as_buffer=True), tmp_path / "model")
    with pytest.raises(ValueError, match=r"threshold'\] extra"):
        load(tmp_path / "model", model=WithState(as_buffer=False))


def test_numbers_are_bounded():
    model = bert()
    with pytest.raises(ValueError, match="padding_idx must be at most 1048576, got 6000000"):
        restore(model, "bert.embeddings.padding_idx", torch.tensor(6_000_000))
