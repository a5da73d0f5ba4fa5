"""The models that engines of the language benchmark open: pruned and compiled, or as GGUF."""

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

#: Types of weights that llama.cpp is measured with.
GGUF_TYPES = ("Q8_0", "Q4_0", "F16")


@dataclass(frozen=True)
class LanguagePeer:
    """An engine: what opens it, what must be installed, which weights it has.

    Attributes:
        kind: a name of `engines.OPENERS`.
        modules: that must be installed.
        sparse: whether it skips zeros, so that it is measured at every sparsity.
        dtype: of the weights.
        block: of the mask.
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
            if dtype != "int4" or block == "1x1":  # int4 has no layout of blocks
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
        engine: its name in tables.
        kind: a name of `engines.OPENERS`.
        sparsity: of the model; None for an engine whose time does not depend on it.
        model: what the engine opens.
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
    """A dense folder with the smallest weights as zeros; made once."""
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
    """A compiled model folder, measured for this processor; made once.

    Args:
        folder: the model.
        dtype: of layers that are dense in it.
        embeddings: "int8" or "int4", of word embeddings and of a head that is tied to them; None: as `dtype`.
        work: folder for the file.
    """
    tables = embeddings or (dtype if dtype in ("int8", "int4") else None)
    file = work / f"{folder.name}-{dtype}{f'-{embeddings}' if embeddings else ''}.sparsekit"
    if not file.exists():
        compile_model(folder, file, dtype=dtype, embeddings=tables, measure=True)
    return file


def gguf(folder: Path, kind: str, work: Path) -> Path:
    """A dense folder as a GGUF file; made once.

    Args:
        folder: a Llama.
        kind: of its weights, as `write_gguf` takes it.
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
    """Every engine with its models, sparse ones once for each sparsity.

    Args:
        folder: a causal model of transformers, dense.
        engines: names in `LANGUAGE_PEERS`.
        sparsities: fractions of zeros.
        embeddings: of our engine's models, as `compiled` takes them.
        work: folder for what is made; what is there already is used again.

    Raises:
        ValueError: an engine does not run the model; `embeddings` is no such type.
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
