"""Prepare the models of the language benchmark: pruned and compiled, or as GGUF."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsekit.bench.language.gguf_file import write_gguf
from sparsekit.bench.layers.weights import mask_structure
from sparsekit.bench.peer import engine_name, not_installed
from sparsekit.engine.compiling import EMBEDDING_DTYPES, compile_model
from sparsekit.formats.csr import BLOCKS
from sparsekit.formats.dtypes import WEIGHT_DTYPES
from sparsekit.progress import Progress

#: Weight types to measure llama.cpp with.
GGUF_TYPES = ("Q8_0", "Q4_0", "F16")


@dataclass(frozen=True)
class LanguagePeer:
    """An engine and the weights that it is measured with.

    Attributes:
        kind: a key of `engines.OPENERS`.
        modules: required modules.
        sparse: whether it skips zeros and is measured at every sparsity.
        dtype: type of the weights.
        block: mask structure.
    """

    kind: str
    modules: Sequence[str] = ()
    sparse: bool = False
    dtype: str = "float32"
    block: str = "1x1"

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return not_installed(self.modules)


def _ours() -> dict[str, LanguagePeer]:
    found = {}
    for block in BLOCKS:
        for dtype in WEIGHT_DTYPES:
            if dtype != "int4" or block == "1x1":  # int4 has no 4x1 layout
                peer = LanguagePeer("sparsekit", ("tokenizers",), True, dtype, block)
                found[engine_name("sparsekit-engine", dtype, block)] = peer
    return found


#: Engines by name.
LANGUAGE_PEERS: dict[str, LanguagePeer] = {
    **_ours(),
    "torch": LanguagePeer("torch", ("transformers",)),
    **{f"llama.cpp-{kind}": LanguagePeer("llama.cpp", ("xllamacpp", "gguf"), dtype=kind) for kind in GGUF_TYPES},
}


@dataclass(frozen=True)
class Candidate:
    """One engine with one model.

    Attributes:
        engine: name in tables.
        kind: a key of `engines.OPENERS`.
        sparsity: sparsity of the model; None for a dense engine.
        model: file or folder that the engine opens.
    """

    engine: str
    kind: str
    sparsity: float | None
    model: Path

    @property
    def file_bytes(self) -> int:
        """Bytes of the weights on disk."""
        if self.model.is_file():
            return self.model.stat().st_size
        return sum(file.stat().st_size for file in self.model.glob("*.safetensors"))


def _pruned(folder: Path, sparsity: float, block: str, to: Path) -> Path:
    """Copy of a dense folder, pruned by magnitude; written once."""
    from transformers import AutoModelForCausalLM

    from sparsekit.checkpoint.transformers.foreign import from_folder
    from sparsekit.pruning import finalize, prune

    if to.exists():
        return to
    model: Any = from_folder(AutoModelForCausalLM.from_pretrained, folder)
    if sparsity > 0:
        prune(model, sparsity, ignore=["lm_head"], mask_structure=mask_structure(block))
    finalize(model)
    model.save_pretrained(to.with_suffix(".part"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, to.with_suffix(".part"))
    return to.with_suffix(".part").rename(to)


def compiled(folder: Path, dtype: str, embeddings: str | None, work: Path) -> Path:
    """Compile a model folder, with layouts measured on this processor; written once.

    Args:
        folder: the model.
        dtype: type of dense layers.
        embeddings: "int8" or "int4" for word embeddings and a tied head; None: as `dtype`.
        work: folder for the file.
    """
    tables = embeddings or (dtype if dtype in ("int8", "int4") else None)
    file = work / f"{folder.name}-{dtype}{f'-{embeddings}' if embeddings else ''}.sparsekit"
    if not file.exists():
        compile_model(folder, file, dtype=dtype, embeddings=tables, measure=True)
    return file


def gguf(folder: Path, kind: str, work: Path) -> Path:
    """Convert a dense folder to a GGUF file; written once.

    Args:
        folder: a Llama.
        kind: type of the weights, as in `write_gguf`.
        work: folder for the file.
    """
    file = work / f"{folder.name}-{kind}.gguf"
    if not file.exists():
        write_gguf(folder, file.with_suffix(".part"), kind)
        file.with_suffix(".part").rename(file)
    return file


def candidates(
    folder: Path, engines: Sequence[str], sparsities: Sequence[float], embeddings: str | None, work: Path
) -> list[Candidate]:
    """Every engine with its models; sparse engines once for each sparsity.

    Args:
        folder: a dense causal model of transformers.
        engines: names in `LANGUAGE_PEERS`.
        sparsities: fractions of zeros.
        embeddings: as in `compiled`, for sparsekit's engine.
        work: folder for the models; existing ones are reused.

    Raises:
        ValueError: an engine does not support the model, or `embeddings` is unknown.
    """
    if embeddings is not None and embeddings not in EMBEDDING_DTYPES:
        raise ValueError(f"embeddings must be one of {', '.join(EMBEDDING_DTYPES)}, got {embeddings!r}")
    wanted = [(engine, at) for engine in engines for at in _sparsities(engine, sparsities)]
    found = []
    for engine, at in Progress(wanted, title="prepare", unit="models"):
        peer = LANGUAGE_PEERS[engine]
        if peer.kind == "sparsekit":
            pruned = _pruned(folder, at or 0.0, peer.block, work / f"{at:g}-{peer.block}")
            model = compiled(pruned, peer.dtype, embeddings, work)
        else:
            model = folder if peer.kind == "torch" else gguf(folder, peer.dtype, work)
        found.append(Candidate(engine, peer.kind, at, model))
    return found


def _sparsities(engine: str, sparsities: Sequence[float]) -> Sequence[float | None]:
    return sparsities if LANGUAGE_PEERS[engine].sparse else [None]
