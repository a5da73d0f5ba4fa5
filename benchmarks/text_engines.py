"""Engines that turn texts into vectors: one adapter each."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from padded_encoder import PaddedEncoder, onnxruntime_encoder
from pruned_minilm import hidden_state, open_sentences, write_onnx, write_onnx_int8

from sparsekit import convert, fuse
from sparsekit.bench.layers.peers import openvino_request
from sparsekit.bench.minilm import minilm_folder
from sparsekit.bench.models.static_int8 import calibration_ids, quantized_openvino
from sparsekit.engine import Encoder
from sparsekit.engine.tokenizing import TOKENIZER

#: Computes a vector for each text, float32 [texts, features], of length 1.
Encode: TypeAlias = Callable[[Sequence[str]], Any]

#: Tokens of calls that `convert` chooses layouts for: a sentence, and a batch.
_TOKENS = (32, 1024)
#: To which texts are truncated; sentence_bert_config.json of the model says so.
MOST_TOKENS = 256


@dataclass(frozen=True)
class TextEngine:
    """An engine: how to open the pruned model in a folder, required modules, and tolerance."""

    open: Callable[[Path], Encode]
    modules: Sequence[str] = ()
    tolerance: float = 1e-4  # of the cosine to torch's vectors
    block: str = "1x1"  # of the mask
    remedy: str = ""  # engine to use if this one's outputs are wrong

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return [name for name in self.modules if importlib.util.find_spec(name) is None]


def _engine(folder: Path, dtype: str) -> Encode:
    return Encoder(folder, dtype=dtype).encode


def _sentences(folder: Path) -> Encode:
    return functools.partial(open_sentences(folder).encode, show_progress_bar=False)


def _sparse_sentences(folder: Path, dtype: str) -> Encode:
    model = open_sentences(folder)
    convert(model, tokens=_TOKENS, dtype=dtype)
    fuse(model[0].auto_model)
    return functools.partial(model.encode, show_progress_bar=False)


def _onnxruntime(folder: Path) -> Encode:
    path = write_onnx(folder, folder / "model.onnx")
    return onnxruntime_encoder(path, folder / TOKENIZER, MOST_TOKENS, 1)


def _onnxruntime_int8(folder: Path, reduce_range: bool) -> Encode:
    path = write_onnx_int8(write_onnx(folder, folder / "model.onnx"), reduce_range=reduce_range)
    return onnxruntime_encoder(path, folder / TOKENIZER, MOST_TOKENS, 1)


def _openvino_int8(folder: Path) -> Encode:
    model = quantized_openvino(hidden_state(folder), calibration_ids(minilm_folder()))
    request = openvino_request(model, 1)

    def hidden(ids: Any, mask: Any) -> Any:
        return request.infer({"input_ids": ids, "attention_mask": mask})[0]

    return PaddedEncoder(hidden, folder / TOKENIZER, MOST_TOKENS)


_ONNX = ("onnxruntime", "onnx", "onnxscript")
_INT8 = 0.05

#: Engines by name; the first one says what answers should be.
ENGINES: dict[str, TextEngine] = {
    "sentence-transformers": TextEngine(_sentences),
    "sparsekit": TextEngine(functools.partial(_sparse_sentences, dtype="float32")),
    "sparsekit-engine": TextEngine(functools.partial(_engine, dtype="float32")),
    "sparsekit-engine-int8": TextEngine(functools.partial(_engine, dtype="int8"), tolerance=_INT8),
    "sparsekit-engine-4x1": TextEngine(functools.partial(_engine, dtype="float32"), block="4x1"),
    "sparsekit-engine-int8-4x1": TextEngine(functools.partial(_engine, dtype="int8"), tolerance=_INT8, block="4x1"),
    "onnxruntime": TextEngine(_onnxruntime, _ONNX),
    "onnxruntime-int8": TextEngine(
        functools.partial(_onnxruntime_int8, reduce_range=False),
        _ONNX,
        tolerance=_INT8,
        remedy="onnxruntime-int8-reduce-range",
    ),
    "onnxruntime-int8-reduce-range": TextEngine(
        functools.partial(_onnxruntime_int8, reduce_range=True), _ONNX, tolerance=_INT8
    ),
    "openvino-int8": TextEngine(_openvino_int8, ("openvino", "nncf"), tolerance=_INT8),
}
