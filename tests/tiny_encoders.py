"""Small encoders of every family of the engine, random weights, odd sizes."""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

from sparsekit.bench.minilm import minilm_folder

_SIZES = {
    "vocab_size": 97,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 45,
}
_DISTILBERT = {"vocab_size": 97, "dim": 40, "n_layers": 2, "n_heads": 5, "hidden_dim": 33}
_DISTILBERT |= {"max_position_embeddings": 45, "activation": "relu"}
#: Layers 0 and 3 see all tokens, 1 and 2 five on either side.
_MODERNBERT = {**_SIZES, "num_hidden_layers": 4, "local_attention": 10, "pad_token_id": 0}
#: Buckets of several distances begin within the sequences of tests.
_DEBERTA = {**_SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
_DEBERTA |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False}
#: `model_type` -> classes of the model and its config, sizes.
ENCODERS = {
    "bert": ("BertModel", "BertConfig", _SIZES),
    "camembert": ("CamembertModel", "CamembertConfig", {**_SIZES, "hidden_act": "gelu_new"}),
    "deberta-v2": ("DebertaV2Model", "DebertaV2Config", _DEBERTA),
    "distilbert": ("DistilBertModel", "DistilBertConfig", _DISTILBERT),
    "electra": ("ElectraModel", "ElectraConfig", {**_SIZES, "embedding_size": 20, "hidden_act": "silu"}),
    "modernbert": ("ModernBertModel", "ModernBertConfig", _MODERNBERT),
    "mpnet": ("MPNetModel", "MPNetConfig", {**_SIZES, "max_position_embeddings": 200, "hidden_size": 48}),
    "roberta": ("RobertaModel", "RobertaConfig", {**_SIZES, "layer_norm_eps": 1e-5, "pad_token_id": 3}),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", {**_SIZES, "type_vocab_size": 1}),
}
LENGTHS = (1, 7, 33)


def randomized(model: nn.Module) -> nn.Module:
    """Every parameter at random: those that start at zero or one would hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            middle = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(middle + 0.2 * torch.randn_like(parameter))
    return model.eval()


def encoder(family: str, model_class: str | None = None, **changes) -> nn.Module:
    default_class, config_class, sizes = ENCODERS[family]
    config = getattr(transformers, config_class)(**{**sizes, **changes})
    return randomized(getattr(transformers, model_class or default_class)(config))


def bert_with_tokenizer(folder: Path, model_class: str | None = None, **changes) -> Path:
    """A BERT folder with MiniLM's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    encoder("bert", model_class, vocab_size=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sequences(lengths=LENGTHS, vocabulary: int = 97) -> list[list[int]]:
    rng = np.random.default_rng(2)
    return [rng.integers(5, vocabulary, length).tolist() for length in lengths]


def hidden_states(model: nn.Module, ids: list[int], types: list[int] | None = None) -> np.ndarray:
    """What PyTorch computes for one sequence, shape [tokens, features]."""
    more = {} if types is None else {"token_type_ids": torch.tensor([types])}
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), **more)[0][0].numpy()


def assert_close(found: np.ndarray, expected: np.ndarray, relative: float = 1e-4) -> None:
    """Within a part of the largest number expected."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
