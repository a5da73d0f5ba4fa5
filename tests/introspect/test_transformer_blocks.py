"""The one finder of transformer blocks, on families of transformers and on models of no family."""

import pytest
import torch
import transformers
from torch import nn

from sparsekit import prune
from sparsekit.introspect.transformer_blocks import find_stacks, outer_lists, transformer_blocks
from sparsekit.pruning import prune_sparsegpt

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 20}


def family(name: str, **sizes: object) -> nn.Module:
    config = transformers.AutoConfig.for_model(name, **sizes)
    return transformers.AutoModel.from_config(config)


@pytest.mark.parametrize(
    ("name", "sizes", "stacks"),
    [
        ("bert", TINY, {"": "encoder.layer"}),
        ("gpt2", {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 20}, {"": "h"}),
        ("llama", {**TINY, "num_key_value_heads": 2}, {"": "layers"}),
        (
            "mixtral",
            {**TINY, "num_key_value_heads": 2, "num_local_experts": 8, "num_hidden_layers": 2},
            {"": "layers"},
        ),
        (
            "t5",
            {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 3, "vocab_size": 20},
            {"encoder": "encoder.block", "decoder": "decoder.block"},
        ),
        (
            "bart",
            {
                **{"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 20},
                **{"encoder_layers": 2, "decoder_layers": 3},
                **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
            },
            {"encoder": "encoder.layers", "decoder": "decoder.layers"},
        ),
    ],
)
def test_stacks_of_families(name, sizes, stacks):
    model = family(name, **sizes)
    assert find_stacks(model) == stacks
    outer = nn.Sequential(model, nn.Linear(16, 2))
    assert find_stacks(outer) == {part: f"0.{stack}" for part, stack in stacks.items()}
    longest = max(stacks.values(), key=lambda stack: len(model.get_submodule(stack)))
    blocks = transformer_blocks(model)
    assert list(blocks) == [f"{longest}.{number}" for number in range(len(model.get_submodule(longest)))]
    assert all(model.get_submodule(name) is block for name, block in blocks.items())


class Mixture(nn.Module):
    """A transformer block with more experts than the model has transformer blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 6)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.router(x).softmax(-1)
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Stack(nn.Module):
    def __init__(self, blocks: list[nn.Module], norms: int = 0) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(norms))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_experts_are_no_transformer_blocks_and_norms_are_no_stack():
    model = Stack([Mixture(), Mixture()], norms=7)
    assert find_stacks(model) == {"": "blocks"}
    assert list(outer_lists(model)) == ["norms", "blocks"]
    batches = [{"x": torch.randn(32, 8, generator=torch.Generator().manual_seed(0))}]
    reached = prune_sparsegpt(model, 0.5, batches)
    assert len(reached) == 14
    assert set(reached.values()) == {0.5}
    assert find_stacks(model) == {"": "blocks"}, "masks are lists too, but not of transformer blocks"


def test_a_plain_list_and_a_masked_model_without_one():
    layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    assert list(transformer_blocks(layers)) == ["0", "1", "2"]
    assert list(transformer_blocks(nn.Sequential(layers))) == ["0.0", "0.1", "0.2"]
    model = nn.Sequential(nn.Linear(8, 8))
    prune(model, 0.5)
    with pytest.raises(ValueError, match="Sequential has no nn.ModuleList of transformer blocks$"):
        find_stacks(model)
    with pytest.raises(ValueError, match="no nn.ModuleList of transformer blocks that holds one of the layers"):
        find_stacks(nn.Sequential(layers, nn.Linear(4, 4)), ["1"])


def test_sparsegpt_prunes_transformer_blocks_that_are_linear_layers():
    torch.manual_seed(0)
    model = Stack([nn.Linear(8, 8) for _ in range(3)])
    dense = [block.weight.detach().clone() for block in model.blocks]
    reached = prune_sparsegpt(model, 0.5, [{"x": torch.randn(64, 8)}])
    assert reached == {"blocks.0": 0.5, "blocks.1": 0.5, "blocks.2": 0.5}
    for block, before in zip(model.blocks, dense, strict=True):
        assert (block.weight == 0).float().mean() == 0.5
        assert not torch.equal(block.weight[block.weight != 0], before[block.weight != 0]), "what stays is corrected"
