"""Encoders in CTranslate2."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sparsekit.bench.models.exporting import quietly
from sparsekit.bench.models.problem import HiddenState
from sparsekit.io.file_names import CONFIG

#: Token of the dummy tokenizer that the converter requires, although only ids are used.
_WORD = "0"


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a dummy tokenizer with the model's vocabulary size."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({str(number): number for number in range(vocabulary)}, unk_token=_WORD))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token=_WORD).save_pretrained(folder)


def _write_model(transformer: Any, folder: Path) -> None:
    """Write a folder for the converter, with a BERT option that newer transformers omit."""
    transformer.save_pretrained(folder)
    options = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({"position_embedding_type": "absolute", **options}))


def ctranslate2_encoder(model: HiddenState, compute_type: str, threads: int) -> Any:
    """Convert a model to CTranslate2.

    Args:
        model: a BERT, DistilBERT or XLM-RoBERTa, which the converter supports.
        compute_type: "float32" or "int8".
        threads: threads per call.

    Raises:
        ValueError: the converter does not support the family.
    """
    transformer: Any = model.model
    with tempfile.TemporaryDirectory() as place, quietly():
        import ctranslate2
        from ctranslate2.converters import TransformersConverter

        folder, converted = Path(place) / "model", Path(place) / "converted"
        _write_model(transformer, folder)
        _write_tokenizer(folder, transformer.config.vocab_size)
        TransformersConverter(str(folder)).convert(str(converted))
        return ctranslate2.Encoder(str(converted), compute_type=compute_type, inter_threads=1, intra_threads=threads)
