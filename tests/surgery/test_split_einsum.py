"""XLNet's attention, split into linear layers: pruned, converted, stored."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from torch import nn

import sparsekit
from sparsekit import conversion_report, convert, densify, finalize, load_state_dict, prune
from sparsekit.splitting import split
from sparsekit.splitting.einsum import SplitEinsum

IDS = torch.tensor([[5, 9, 12, 7, 3], [4, 8, 20, 0, 0]])
MASK = (IDS != 0).long()


def xlnet() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=4, d_inner=64)
    return transformers.XLNetLMHeadModel(config).eval()


def pruned() -> nn.Module:
    model = xlnet()
    reached = prune(model, 0.7, ignore=["lm_loss"])
    assert len(reached) == 2 * 7
    return finalize(model)


def logits(model: nn.Module, **arguments) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK, **arguments).logits[:, :1]


def test_xlnet(tmp_path):
    model = pruned()
    dense = copy.deepcopy(model)
    assert (dense.transformer.layer[0].rel_attn.o == 0).float().mean() == pytest.approx(0.7, abs=0.01)
    report = conversion_report(convert(model, ignore=["lm_loss"], min_sparsity=0.5))
    assert report.converted == len(report.layers) == 14, str(report)
    torch.testing.assert_close(logits(model), logits(dense))
    permuted = {"perm_mask": torch.rand(2, 5, 5).round(), "target_mapping": torch.eye(5)[:1].repeat(2, 1, 1)}
    torch.testing.assert_close(logits(model, **permuted), logits(dense, **permuted))  # with two streams
    expected = logits(model)
    sparsekit.save(model, tmp_path)
    for again in (
        sparsekit.load(tmp_path),
        transformers.XLNetLMHeadModel.from_pretrained(tmp_path),
        load_state_dict(xlnet(), model.state_dict()),
        copy.deepcopy(model),
    ):
        assert torch.equal(logits(again), expected)
        assert torch.equal(logits(densify(again)), logits(dense))
    for key, tensor in dense.state_dict().items():
        assert torch.equal(densify(model).state_dict()[key], tensor), key


def test_memory_and_weights_of_attention():
    dense = pruned()
    model = copy.deepcopy(dense)
    convert(model, ignore=["lm_loss"], min_sparsity=0.5)
    with torch.no_grad():
        for one in (model, dense):
            one.found = one(IDS, output_attentions=True, use_mems=True)
            one.next = one(IDS, mems=one.found.mems, use_mems=True)
    torch.testing.assert_close(model.found.attentions, dense.found.attentions)
    torch.testing.assert_close(model.next.logits, dense.next.logits)


def test_a_split_parameter_is_not_used_otherwise():
    attention = xlnet().transformer.layer[0].rel_attn
    made = split(attention)
    assert isinstance(made, SplitEinsum)
    made.shell.forward = lambda: torch.einsum("hnd,hnd->", made.shell.q, made.shell.q)
    with pytest.raises(RuntimeError, match="takes part in its einsum only"):
        made()


def test_threads_share_a_model():
    model = pruned()
    convert(model, min_sparsity=0.5)
    expected = logits(model)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: logits(model), range(24)))
    finally:
        sys.setswitchinterval(interval)
    assert all(torch.equal(one, expected) for one in found)
