"""Experts of mixtures, split into linear layers: pruned, converted, generating, stored."""

import copy
import importlib
import inspect
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import sparsekit
from sparsekit import conversion_report, convert, densify, finalize, load_state_dict, prune
from sparsekit.pruning import (
    allocate_sparsity,
    drop_optimizer_state,
    keep_zeros,
    prune_obert,
    prune_sparsegpt,
    pruning_report,
)
from sparsekit.splitting import SplitExperts, SplitModule, split
from sparsekit.training.checkpoint import load_model_state

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 24,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
FOUR, LOCAL = {"num_experts": 4, "num_experts_per_tok": 2}, {"num_local_experts": 4, "num_experts_per_tok": 2}
#: Model type -> its sizes, and how many modules are split.
FAMILIES = {
    "mixtral": (LOCAL, 2),
    "qwen2_moe": ({**FOUR, "shared_expert_intermediate_size": 24}, 2),
    "qwen3_moe": ({**FOUR, "head_dim": 8}, 2),
    "deepseek_v2": ({**ROUTED, **LATENT}, 1),
    "deepseek_v3": ({**ROUTED, **LATENT, "n_shared_experts": 1}, 1),
    "gpt_oss": ({**LOCAL, "head_dim": 8}, 2),  # turned, with biases, gate and up interleaved
    "llama4_text": ({**LOCAL, "num_experts_per_tok": 1, "head_dim": 8, "intermediate_size_mlp": 24}, 2),
    "olmoe": (FOUR, 2),
    "granitemoe": (LOCAL, 2),
    "jetmoe": ({**LOCAL, "kv_channels": 8, "num_key_value_heads": 2}, 8),
}
IDS = torch.tensor([[5, 9, 12, 7, 3, 40], [4, 8, 20, 0, 0, 0]])
MASK = (IDS != 0).long()


def mixture(name: str) -> nn.Module:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name](**{**SIZES, **FAMILIES[name][0]})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.mean() + torch.randn_like(parameter) * 0.2)
    return model


def pruned(name: str) -> nn.Module:
    model = mixture(name)
    prune(model, 0.7, ignore=["lm_head"])
    return finalize(model)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits[MASK.bool()]


@pytest.mark.parametrize("name", FAMILIES)
def test_mixtures_are_pruned_converted_and_made_dense_again(name):
    model = pruned(name)
    for parameter in (p for key, p in model.named_parameters() if p.dim() == 3):
        sparsities = (parameter == 0).float().mean((1, 2))
        torch.testing.assert_close(sparsities, torch.full_like(sparsities, 0.7), atol=0.01, rtol=0)
    dense = copy.deepcopy(model)
    expected = logits(dense)
    report = conversion_report(convert(model, ignore=["lm_head"], min_sparsity=0.5))
    assert report.converted == len(report.layers), str(report)
    split_up = [module for module in model.modules() if isinstance(module, SplitModule)]
    assert len(split_up) == FAMILIES[name][1]
    assert not [key for key, p in model.named_parameters() if p.dim() == 3]
    torch.testing.assert_close(logits(model), expected)
    torch.testing.assert_close(logits(sparsekit.fuse(copy.deepcopy(model))), expected)
    arguments = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(IDS[:1], **arguments), dense.generate(IDS[:1], **arguments))
    densify(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in dense.modules()]
    for key, tensor in dense.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "llama4_text", "jetmoe"])
def test_folders_of_mixtures(name, tmp_path):
    model = pruned(name)
    sparsekit.save(model, tmp_path / "pruned")
    assert torch.equal(logits(sparsekit.load(tmp_path / "pruned")), logits(model))
    convert(model, ignore=["lm_head"], min_sparsity=0.5)
    expected = logits(model)
    sparsekit.save(model, tmp_path / "sparse")
    for again in (
        sparsekit.load(tmp_path / "sparse"),
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sparse"),
        load_state_dict(mixture(name), model.state_dict()),
    ):
        assert torch.equal(logits(again), expected)
        assert sum(isinstance(module, SplitModule) for module in again.modules()) == FAMILIES[name][1]
        assert not any(isinstance(module, SplitModule) for module in densify(again).modules())
    assert sparsekit.verify(tmp_path / "sparse").passed
    again = transformers.AutoModel.from_pretrained(tmp_path / "sparse")
    with torch.no_grad():
        states = [one(input_ids=IDS).last_hidden_state for one in (again, model.model)]
    assert torch.equal(*states)
    model.save_pretrained(tmp_path / "by_transformers")
    assert torch.equal(
        logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "by_transformers")), expected
    )
    sparsekit.save(model, tmp_path / "dense", dense=True)
    dense = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    torch.testing.assert_close(logits(dense), expected)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_int8(name):
    model = pruned(name)
    expected = logits(model)
    assert conversion_report(convert(model, ignore=["lm_head"], min_sparsity=0.5, dtype="int8")).converted
    torch.testing.assert_close(logits(model), expected, atol=0.15 * float(expected.abs().max()), rtol=0)


def test_some_experts_only(tmp_path):
    dense = pruned("mixtral")
    for targets in (["re:.*gate_up_proj.2"], ["model.layers.1.mlp.experts.down_proj"]):
        model = copy.deepcopy(dense)
        report = conversion_report(convert(model, targets=targets, min_sparsity=0.5))
        assert report.converted == len(report.layers)
        assert sum(isinstance(module, SplitExperts) for module in model.modules()) == (2 if "re:" in targets[0] else 1)
        torch.testing.assert_close(logits(model), logits(dense))
        sparsekit.save(model, tmp_path)
        assert torch.equal(logits(sparsekit.load(tmp_path)), logits(model))
        assert torch.equal(logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_masks_stay_on_the_parameters_through_training():
    model = mixture("qwen3_moe").train()
    prune(model, 0.5, ignore=["lm_head"])
    experts = model.model.layers[0].mlp.experts
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    before = experts.gate_up_proj.detach().clone()
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    assert not torch.equal(experts.gate_up_proj, before)
    assert bool((experts.gate_up_proj[before == 0] == 0).all())
    prune(model, 0.75, ignore=["lm_head"])
    assert bool((experts.gate_up_proj[before == 0] == 0).all())
    finalize(model)
    assert type(experts.gate_up_proj) is nn.Parameter


@pytest.mark.parametrize("criterion", ["wanda", "taylor"])
def test_criteria_with_statistics(criterion):
    model = mixture("mixtral")
    ids = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(0))
    reached = prune(model, 0.5, criterion=criterion, batches=[{"input_ids": ids, "labels": ids}], ignore=["lm_head"])
    assert sum(".experts." in name for name in reached) == 2 * 2 * 4
    assert (model.model.layers[0].mlp.experts.down_proj == 0).float().mean() == 0.5


#: Module of transformers -> class of experts that are unlike those above: parameters of two dimensions; experts that
#: return their input; no gate; a norm after each expert; a limit after the activation; turned; another dtype of sums.
OTHERS = {
    "dbrx": "DbrxExperts",
    "longcat_flash": "LongcatFlashExperts",
    "nemotron_h": "NemotronHExperts",
    "muse_spark": "MuseSparkExperts",
    "step3p7": "Step3p7Experts",
    "aria": "AriaExperts",
    "openai_privacy_filter": "OpenAIPrivacyFilterExperts",
    "minimax_m3_vl": "MiniMaxM3VLExperts",
    "beam": "BeamExperts",
}
ONE_FOR_ALL = {
    **dict.fromkeys(["num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts"], 4),
    **dict.fromkeys(["intermediate_size", "ffn_hidden_size", "moe_intermediate_size", "expert_ffn_hidden_size"], 6),
    **dict.fromkeys(["hidden_act", "mlp_hidden_act"], "silu"),
    **{
        "hidden_size": 8,
        "moe_hidden_size": 8,
        "zero_expert_num": 2,
        "moe_latent_size": None,
        "ffn_act_fn": {"name": "silu"},
    },
    **{"swiglu_limit": 1.5, "swiglu_alpha": 1.7, "post_norm_eps": 1e-6, "_experts_implementation": "eager"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_classes_of_experts(name):
    torch.manual_seed(0)
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    experts = getattr(module, OTHERS[name])(SimpleNamespace(**ONE_FOR_ALL)).eval()
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_()
    made = split(experts)
    assert isinstance(made, SplitExperts)
    x, weights = torch.randn(1, 7, 8) if name == "dbrx" else torch.randn(7, 8), torch.rand(7, 2)
    index = torch.stack([torch.randperm(6 if name == "longcat_flash" else 4)[:2] for _ in range(7)])
    expected = experts(x, index, weights)
    torch.testing.assert_close(made(x, index, weights), expected)
    names = list(inspect.signature(type(experts).forward).parameters)[2:]
    torch.testing.assert_close(made(x, **dict(zip(names, (index, weights), strict=True))), expected)
    torch.testing.assert_close(made.merge()(x, index, weights), expected)


class Strange(nn.Module):
    """Holds its experts as others do and computes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts = 4
        self.gate_up_proj = nn.Parameter(torch.randn(4, 16, 8))
        self.down_proj = nn.Parameter(torch.randn(4, 8, 8))
        self.act_fn = nn.SiLU()

    def forward(self, hidden, index, weights):
        parts = torch.einsum("th,eoh->teo", hidden, self.gate_up_proj)
        gate, up = parts.chunk(2, -1)
        return torch.einsum("tei,ehi->th", self.act_fn(gate) - up, self.down_proj)


def test_experts_that_compute_something_else_are_left_alone():
    assert split(Strange()) is None


def test_sparsegpt_obert_and_reports_reach_experts():
    ids = torch.randint(3, 64, (16, 16), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": ids, "labels": ids}]
    methods = (
        lambda model: prune_sparsegpt(model, 0.5, batches, ignore=["lm_head"]),
        lambda model: prune_obert(model, 0.5, batches * 2, ignore=["lm_head"]),
        lambda model: prune(model, allocate_sparsity(model, 0.5, batches, ignore=["lm_head"]), ignore=["lm_head"]),
    )
    for method in methods:
        model = mixture("mixtral")
        experts = model.model.layers[1].mlp.experts
        parameter = experts.gate_up_proj
        reached = method(model)
        assert sum(".experts." in name for name in reached) == 16
        assert experts.parametrizations.gate_up_proj.original is parameter
        assert 0.3 < float((experts.gate_up_proj == 0).float().mean()) < 0.7
        report = pruning_report(model)
        assert len([layer for layer in report.layers if ".experts." in layer.name]) == 16
        state = model.state_dict()
        finalize(model)
        assert sorted(keep_zeros(model)) == sorted(reached)
        fresh = mixture("mixtral")
        load_model_state(fresh, state)
        assert torch.equal(logits(fresh), logits(model))
        optimizer = torch.optim.Adam(model.parameters())
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        drop_optimizer_state(optimizer, model)
        moments = optimizer.state[parameter]["exp_avg"]
        assert bool((moments[experts.gate_up_proj == 0] == 0).all())
        with pytest.raises(ValueError, match="still has its mask"):
            sparsekit.save(model, "unused")


def test_experts_that_no_token_reaches():
    ids = torch.full((1, 4), 7)  # one token, which goes to two experts of four
    batches = [{"input_ids": ids, "labels": ids}]
    for criterion in ("wanda", "sparsegpt"):
        model = mixture("mixtral")
        if criterion == "wanda":
            prune(model, 0.5, criterion="wanda", batches=batches, ignore=["lm_head"])
        else:
            prune_sparsegpt(model, 0.5, batches, ignore=["lm_head"])
        experts = finalize(model).model.layers[0].mlp.experts
        dense = mixture("mixtral").model.layers[0].mlp.experts.gate_up_proj
        for mine, other in zip(experts.gate_up_proj, dense, strict=True):
            assert (mine == 0).float().mean() == 0.5
            if torch.equal(mine, other * (mine != 0)):  # not corrected: the largest stay
                kept = other.abs().flatten().topk(int((mine != 0).sum())).indices if criterion == "sparsegpt" else None
                assert kept is None or bool((mine.flatten()[kept] != 0).float().mean() > 0.7)
    with pytest.raises(ValueError, match=r"no token of the batches reaches 8 experts .*\.experts\."):
        prune(mixture("mixtral"), 0.5, criterion="taylor", batches=batches, ignore=["lm_head"])


def test_the_report_has_a_line_for_each_stack_of_experts():
    model = pruned("mixtral")
    report = conversion_report(convert(model, ignore=["lm_head", "model.layers.1.mlp"], min_sparsity=0.5))
    lines = [line for line in str(report).splitlines() if ".mlp." in line]
    assert [line.split()[0] for line in lines[:2]] == [
        "model.layers.0.mlp.experts.gate_up_proj.0-3",
        "model.layers.0.mlp.experts.down_proj.0-3",
    ]
    unreached = {other.name: other for other in report.others}
    router, experts = "model.layers.*.mlp.gate", "model.layers.*.mlp.experts.gate_up_proj.*"
    assert unreached[router].reason == "a parameter that MixtralTopKRouter computes with itself"
    assert (unreached[experts].count, unreached[experts].shape) == (4, (48, 32))
    assert unreached[experts].reason == "targets and ignore leave it out"
    assert f"not converted: {experts} (4 of 48 x 32), " in str(report)
    assert len(report.layers) == 2 * 4 + 8
    assert report.weights == sum(parameter.numel() for parameter in mixture("mixtral").parameters())
    sizes = [layer.shape[0] * layer.shape[1] for layer in report.layers]
    assert report.sparse_weights == sum(sizes)
    assert f"{sum(sizes) / report.weights:.1%} of the model's {report.weights:,} weights" in str(report)
