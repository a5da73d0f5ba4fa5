"""Small random transformers models of several families, and helpers to test removed units."""

import json

import torch
import transformers
from torch import nn

from sparsekit.pruning import resize_to
from sparsekit.pruning.layers import weight_of

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
PADDING = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
#: Family -> class of the model, class of its config, sizes; with 24 hidden units, GPT-2 with 128.
FAMILIES = {
    "bert": ("BertForMaskedLM", "BertConfig", {**SMALL, "intermediate_size": 24}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 2, "intermediate_size": 24}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, **PADDING}),
    "opt": ("OPTForCausalLM", "OPTConfig", {**SMALL, "ffn_dim": 24, "word_embed_proj_dim": 32, **PADDING}),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertConfig", {"vocab_size": 50, "dim": 32, "n_layers": 2}),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**SMALL, "intermediate_size": 24, **PADDING}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**SMALL, "intermediate_size": 24, **PADDING}),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", {**SMALL, "intermediate_size": 24, **PADDING}),
}
FAMILIES["distilbert"][2].update(n_heads=4, hidden_dim=24)


def family(name: str, attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    model_class, config_class, sizes = FAMILIES[name]
    config = getattr(transformers, config_class)(**sizes)
    model = getattr(transformers, model_class)._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero and would show no mistake
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.double().eval()


def batches(count: int = 2) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        ids = torch.randint(3, 50, (3, 7), generator=generator)
        mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
        found.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})
    return found


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """At tokens: what models say at padding depends on their attention."""
    with torch.no_grad():
        return model(**batch).logits[batch["attention_mask"].bool()]


def zero_inputs(model: nn.Module, layer: str, features: list[int]) -> None:
    def hook(_, args):
        keep = torch.ones(args[0].shape[-1], dtype=args[0].dtype)
        keep[features] = 0.0
        return (args[0] * keep, *args[1:])

    model.get_submodule(layer).register_forward_pre_hook(hook)


def rows_lost(dense: nn.Module, narrow: nn.Module, layer: str, count: int) -> list[int]:
    """Which of a layer's first `count` outputs are no longer there."""
    old, new = weight_of(dense.get_submodule(layer))[:count], weight_of(narrow.get_submodule(layer))
    return (~(old[:, None] == new[None]).all(-1).any(1)).nonzero().flatten().tolist()


def made_again(model: nn.Module) -> nn.Module:
    """The model from its config as text and its state dict."""
    config = type(model.config).from_dict(json.loads(model.config.to_json_string(use_diff=False)))
    fresh = type(model)._from_config(config).double().eval()
    resize_to(fresh, getattr(config, "sparsekit_widths", {}))
    fresh.load_state_dict(model.state_dict())
    return fresh
