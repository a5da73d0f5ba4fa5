"""transformers and sentence-transformers open and save model folders themselves, as `load` and `save` would."""

import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from families import batches, family, logits
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from test_checkpoint_transformers import SIZES, bert, contents, sparse_bert, without_neurons
from torch import nn
from transformers.quantizers import auto

import sparsekit
from sparsekit import SparseLinear, conversion_report, convert, densify, load, prune, save
from sparsekit.bench.minilm import minilm_folder
from sparsekit.checkpoint.transformers import registration
from sparsekit.checkpoint.transformers.quantizer import SparseConfig, SparseQuantizer

transformers.utils.logging.disable_progress_bar()
IDS = torch.arange(5, 23).reshape(2, 9)
TEXTS = ["a b c", "c d e f g a"]


def outputs(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS))[0]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefg"))}
    tokens = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    tokens.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=40, **names)


def mostly_zero(model, part: str) -> None:
    """Prune and convert the linear layers inside a part of a model."""
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and part in name:
            module.weight.data *= torch.rand(module.weight.shape, generator=generator) > 0.7
    assert conversion_report(convert(model, targets=[f"re:.*{part}"], min_sparsity=0.5)).converted


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_from_pretrained_gives_what_load_gives(tmp_path, dtype):
    model = bert()
    prune(model, 0.8, targets=["re:.*encoder"])
    convert(model, targets=["re:.*encoder"], min_sparsity=0.5, dtype=dtype)
    save(model, tmp_path / "model")
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert type(opened) is type(loaded)
    assert not opened.training
    assert opened.bert.encoder.layer[0].intermediate.dense.activation == "gelu"
    for (name, one), (_, other) in zip(opened.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert torch.equal(outputs(opened), outputs(model))
    assert torch.equal(outputs(copy.deepcopy(opened)), outputs(model))


@pytest.mark.parametrize("name", ["llama", "modernbert"])
def test_other_families(tmp_path, name):
    model = family(name).float()
    mostly_zero(model, "mlp")
    save(model, tmp_path / "model", max_shard_size=30_000)
    opened = type(model).from_pretrained(tmp_path / "model")
    for batch in batches(1):
        assert torch.equal(logits(opened, batch), logits(model, batch))


def test_a_pipeline_opens_the_folder(tmp_path):
    model = sparse_bert()
    save(model, tmp_path / "model", tokenizer=tokenizer())
    found = transformers.pipeline("text-classification", model=str(tmp_path / "model"))
    assert isinstance(found.model.bert.encoder.layer[0].output.dense, SparseLinear)
    inputs = tokenizer()(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits.softmax(-1).max().item()
    assert found(TEXTS[0])[0]["score"] == pytest.approx(expected)


def test_save_pretrained_writes_what_save_writes(tmp_path):
    model = sparse_bert(transformers.BertForMaskedLM)
    save(model, tmp_path / "saved")
    model.save_pretrained(tmp_path / "converted")
    opened = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "converted")
    assert opened.cls.predictions.decoder.weight is opened.bert.embeddings.word_embeddings.weight
    opened.save_pretrained(tmp_path / "again", max_shard_size="5GB")
    for folder in ("converted", "again"):
        assert contents(tmp_path / folder) == contents(tmp_path / "saved")
    opened.save_pretrained(tmp_path / "again", max_shard_size="20 KB")
    assert len(list((tmp_path / "again").glob("model-*"))) > 1
    assert torch.equal(outputs(load(tmp_path / "again")), outputs(model))
    with pytest.raises(ValueError, match="cannot be saved with push_to_hub.*upload_folder"):
        opened.save_pretrained(tmp_path / "again", push_to_hub=True)
    with pytest.raises(ValueError, match="max_shard_size must be a number of bytes or such as '5GB', got 'large'"):
        opened.save_pretrained(tmp_path / "again", max_shard_size="large")


def test_a_model_made_dense_is_saved_dense(tmp_path):
    save(sparse_bert(), tmp_path / "model")
    cls = transformers.AutoModelForSequenceClassification
    for make_dense in (densify, lambda model: model.dequantize()):
        model = make_dense(cls.from_pretrained(tmp_path / "model"))
        model.save_pretrained(tmp_path / "dense")
        assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())
        assert not (tmp_path / "dense" / "sparsekit.json").exists()
        assert torch.equal(outputs(cls.from_pretrained(tmp_path / "dense")), outputs(model))


def test_a_decoder_that_was_untied_and_made_sparse(tmp_path):
    model = bert(transformers.BertForMaskedLM)
    decoder = model.cls.predictions.decoder
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    mostly_zero(model, "cls.predictions.decoder")
    save(model, tmp_path / "model")
    opened = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert isinstance(opened.cls.predictions.decoder, SparseLinear)
    for found in (opened, load(tmp_path / "model")):
        assert torch.equal(outputs(found), outputs(model))


def test_layers_of_uneven_width(tmp_path):
    model = bert()
    without_neurons(model, 0, 40)
    without_neurons(model, 1, 17)
    mostly_zero(model, "layer.1")
    save(model, tmp_path / "model")
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert opened.bert.encoder.layer[0].intermediate.dense.weight.shape == (40, 32)
    assert opened.bert.encoder.layer[1].output.dense.in_features == 17
    assert torch.equal(outputs(opened), outputs(model))


def test_heads_that_were_removed(tmp_path):
    model = family("opt").float()
    sparsekit.pruning.prune_heads(model, heads={1: [2, 3]})
    save(model, tmp_path / "model")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for found in (opened, load(tmp_path / "model")):
        assert torch.equal(logits(found, batches(1)[0]), logits(model, batches(1)[0]))


def test_dense_layers_that_were_stored_sparse_make_an_ordinary_model(tmp_path):
    model = bert()
    prune(model, 0.9)
    sparsekit.finalize(model)
    save(model, tmp_path / "model")
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert not hasattr(opened, "hf_quantizer")
    assert not hasattr(opened.config, "quantization_config")
    assert not hasattr(opened.config, "_is_quantized"), "by which Falcon-Mamba, Jamba and GPT-Neo compute otherwise"
    assert torch.equal(outputs(opened.float()), outputs(model))


def test_a_body_without_its_head_and_with_another(tmp_path):
    model = sparse_bert()
    save(model, tmp_path / "model")
    cls = transformers.AutoModel
    body, info = cls.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert info["unexpected_keys"] == {"classifier.weight", "classifier.bias"}
    assert info["missing_keys"] == set()
    assert torch.equal(outputs(body), outputs(model.bert))
    save(body, tmp_path / "body")
    cls = transformers.AutoModelForMaskedLM
    other, info = cls.from_pretrained(tmp_path / "body", output_loading_info=True)
    assert "cls.predictions.transform.dense.weight" in info["missing_keys"]
    assert info["unexpected_keys"] == {"pooler.dense.weight", "pooler.dense.bias"}
    assert other.cls.predictions.decoder.weight is other.bert.embeddings.word_embeddings.weight
    assert torch.equal(outputs(other.bert), outputs(body))
    assert 0.01 < other.cls.predictions.transform.dense.weight.std() < 0.03, "initialized as transformers does"


def test_an_encoder_saved_without_its_pooler(tmp_path):
    model = sparse_bert(transformers.BertModel, add_pooling_layer=False)
    save(model, tmp_path / "model")
    opened, info = transformers.AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert info["missing_keys"] == {"pooler.dense.weight", "pooler.dense.bias"}
    assert torch.equal(outputs(opened), outputs(model))


def test_another_type_may_be_asked_for(tmp_path):
    save(sparse_bert(), tmp_path / "model")
    cls = transformers.AutoModelForSequenceClassification
    opened = cls.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.bfloat16}
    assert outputs(opened).dtype == torch.bfloat16
    opened.save_pretrained(tmp_path / "half")
    assert torch.equal(outputs(cls.from_pretrained(tmp_path / "half")), outputs(opened))


def test_nothing_damaged_or_strange_is_opened(tmp_path):
    model = sparse_bert()
    folder = tmp_path / "model"
    cls = transformers.AutoModelForSequenceClassification

    def refused(message: str, **arguments) -> None:
        with pytest.raises(ValueError, match=message):
            cls.from_pretrained(folder, **arguments)

    save(model, folder)
    refused(r"sparse layers run on the CPU, got device_map with cuda:0", device_map={"": "cuda:0"})
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused("has another checksum than sparsekit.json says")
    (folder / "model.safetensors").write_bytes(weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    refused("must be .* in this model, the folder has")
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3, "intermediate_size": 10**9}))
    refused(r"config.json asks for tensors of \d+ bytes, expected at most")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sparsekit.json").unlink()
    refused(r"has no sparsekit.json.*snapshot_download")
    bert().save_pretrained(folder)
    refused("does require the model to be pre-quantized", quantization_config=SparseConfig())


def test_a_folder_for_another_model_is_refused(tmp_path):
    save(sparse_bert(), tmp_path / "model")
    config = transformers.LlamaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=60)
    config.quantization_config = {"quant_method": "sparsekit", "format": 1}
    with pytest.raises(ValueError, match="holds no weights for a LlamaModel"):
        transformers.LlamaModel.from_pretrained(tmp_path / "model", config=config)


OPEN_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sparsekit":
            raise ModuleNotFoundError("no sparsekit", name="sparsekit")

if sys.argv[2] == "absent":
    sys.meta_path.insert(0, Absent())
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer

folder = sys.argv[1]
config = transformers.AutoConfig.from_pretrained(folder)
assert transformers.AutoTokenizer.from_pretrained(folder)("a b")
openers = [
    lambda: transformers.AutoModel.from_pretrained(folder),
    lambda: transformers.AutoModelForSequenceClassification.from_pretrained(folder),
    lambda: transformers.AutoModelForSequenceClassification.from_pretrained(folder, config=config),
    lambda: transformers.BertForMaskedLM.from_pretrained(folder, ignore_mismatched_sizes=True),
    lambda: transformers.pipeline("text-classification", model=folder),
    lambda: SentenceTransformer(folder, device="cpu"),
    lambda: CrossEncoder(folder, device="cpu"),
]
for number, opener in enumerate(openers):
    try:
        opener()
    except ValueError as error:
        assert "call `import sparsekit` before you open it" in str(error), error
    else:
        raise AssertionError(f"opener {number} made a model")
assert "sparsekit" not in sys.modules
"""


@pytest.mark.parametrize("library", [pytest.param("absent", marks=pytest.mark.slow), "not imported"])
def test_without_the_library_nothing_opens_a_folder(tmp_path, library):
    save(sparse_bert(), tmp_path / "model", tokenizer=tokenizer())
    subprocess.run([sys.executable, "-W", "ignore", "-c", OPEN_WITHOUT, str(tmp_path / "model"), library], check=True)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "from transformers import BertForSequenceClassification" in card
    assert "Without it they refuse the folder" in card
    with safe_open(tmp_path / "model" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "sparsekit"}, "which transformers 4 refuses"


def test_a_body_inside_another_model_is_marked_too(tmp_path):
    text = {"vocab_size": 60, "head_dim": 16, "num_key_value_heads": 1, **SIZES}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    save(transformers.Gemma3ForConditionalGeneration(config), tmp_path / "model")
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    for part in (written, written["text_config"], written["vision_config"]):
        assert part["transformers_weights"].startswith("this model is sparse")
        assert part["quantization_config"] == {"quant_method": "sparsekit", "format": 1}


def test_another_format_is_refused(tmp_path):
    save(sparse_bert(), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for found in (2, "1", True, None):
        config["quantization_config"]["format"] = found
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        for opener in (load, transformers.AutoModel.from_pretrained):
            with pytest.raises(ValueError, match=f"quantization_config.format must be 1, got {found!r}"):
                opener(tmp_path / "model")


def test_registration_waits_for_transformers(tmp_path, monkeypatch):
    (tmp_path / "awaited_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registration, "_AWAITED", "awaited_module")
    others = [finder for finder in sys.meta_path if not isinstance(finder, registration._WaitForTransformers)]
    monkeypatch.setattr(sys, "meta_path", others)
    done = []
    monkeypatch.setattr(registration, "_register", lambda: done.append(sys.modules["awaited_module"].VALUE))
    registration.register_when_imported()
    assert importlib.util.find_spec("awaited_module") is not None
    assert done == []
    module = importlib.import_module("awaited_module")
    assert done == [1]
    assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"
    registration.register_when_imported()
    assert done == [1, 1]
    monkeypatch.delitem(sys.modules, "awaited_module")


def test_a_version_that_does_not_fit_leaves_transformers_usable(monkeypatch):
    monkeypatch.setitem(sys.modules, "sparsekit.checkpoint.transformers.quantizer", None)
    with pytest.warns(UserWarning, match="cannot register with this version of transformers.*sparsekit.load"):
        registration._register()
    monkeypatch.undo()
    registration._register()
    assert auto.AUTO_QUANTIZER_MAPPING["sparsekit"] is SparseQuantizer


def sentence_transformer(folder: Path) -> SentenceTransformer:
    dense = bert(transformers.BertModel)
    dense.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    encoder = Transformer(str(folder))
    return SentenceTransformer(modules=[encoder, Pooling(32, pooling_mode="cls")], device="cpu")


OPEN_AGAIN = """
import sys
import sparsekit
assert not {"torch", "transformers"} & set(sys.modules)
import numpy
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
assert type(model[0].auto_model.encoder.layer[0].output.dense) is sparsekit.SparseLinear
numpy.save(sys.argv[2], model.encode(["a b c", "c d e f g a"]))
"""


def test_a_sentence_transformer_opens_in_a_new_process(tmp_path):
    model = sentence_transformer(tmp_path / "dense")
    mostly_zero(model, "encoder")
    save(model, tmp_path / "sparse")
    names = {path.name for path in (tmp_path / "sparse").iterdir()}
    assert {"modules.json", "tokenizer.json", "1_Pooling", "sparsekit.json"} <= names
    assert "sparsekit.load" in (tmp_path / "sparse" / "README.md").read_text()
    arguments = [str(tmp_path / "sparse"), str(tmp_path / "embeddings.npy")]
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", OPEN_AGAIN, *arguments], check=True)
    expected = model.encode(TEXTS)
    assert np.array_equal(np.load(tmp_path / "embeddings.npy"), expected)
    assert "save_pretrained" not in vars(model[0].auto_model)
    model.save(str(tmp_path / "by_itself"))
    assert np.array_equal(SentenceTransformer(str(tmp_path / "by_itself"), device="cpu").encode(TEXTS), expected)
    save(model, tmp_path / "dense again", dense=True)
    assert not (tmp_path / "dense again" / "sparsekit.json").exists()
    dense = SentenceTransformer(str(tmp_path / "dense again"), device="cpu")
    np.testing.assert_allclose(dense.encode(TEXTS), expected, atol=1e-6)


def test_a_dense_sentence_transformer_with_zeros_is_stored_sparse(tmp_path):
    model = sentence_transformer(tmp_path / "dense")
    prune(model, 0.9)
    sparsekit.finalize(model)
    save(model, tmp_path / "sparse")
    size = (tmp_path / "sparse" / "model.safetensors").stat().st_size
    assert size < 0.7 * (tmp_path / "dense" / "model.safetensors").stat().st_size
    again = SentenceTransformer(str(tmp_path / "sparse"), device="cpu")
    assert np.array_equal(again.encode(TEXTS), model.encode(TEXTS))
    model.append(nn.Sequential(SparseLinear(32, 8)))
    with pytest.raises(ValueError, match=r"2.0 is a SparseLinear and no part of a transformers model.*only model\[0\]"):
        save(model, tmp_path / "sparse")


def test_minilm_opens_again_as_a_sentence_transformer(tmp_path):
    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    prune(model, 0.9)
    assert conversion_report(convert(model, min_sparsity=0.0)).converted == 37
    save(model, tmp_path / "model")
    again = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert np.array_equal(again.encode(["A cat sits."]), model.encode(["A cat sits."]))
    loaded = load(tmp_path / "model")
    assert torch.equal(outputs(loaded), outputs(model[0].auto_model))
