"""`save_pretrained` for compressed models: it writes the same folder as `sparsekit.save`."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from sparsekit.checkpoint.saving import save
from sparsekit.nn import Compressed

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _bytes(size: int | str) -> int:
    """Parse a size in bytes, including strings such as transformers' "5GB"."""
    number, unit = re.fullmatch(r"(\d*)(.*)", str(size).upper().replace(" ", "")).groups()  # type: ignore[union-attr]
    if number and (not unit or unit in _UNITS):
        return int(number) * _UNITS.get(unit, 1)
    raise ValueError(f"max_shard_size must be a number of bytes or such as '5GB', got {size!r}")


def _save_sparse(model: Any, given: dict[str, Any]) -> None:
    """`save` with the arguments of `save_pretrained`."""
    refused = [name for name in ("push_to_hub", "variant", "distributed_checkpoint") if given.get(name)]
    if refused:
        raise ValueError(f"a sparse model cannot be saved with {', '.join(refused)}; save it to a folder without, and "
                         "upload that with huggingface_hub.upload_folder")  # fmt: skip
    if given.get("is_main_process", True):
        save(model, given["save_directory"], max_shard_size=_bytes(given.get("max_shard_size", 5 * 10**9)))


def saving_sparse(original: Callable[..., Any], quantizer_class: Any) -> Callable[..., Any]:
    """`PreTrainedModel.save_pretrained` that writes a compressed model as `sparsekit.save` does.

    The original would write their arrays and a configuration that does not mention them: a folder that opens with
    random weights. A quantizer cannot prevent that: converted models have none, and it does not get the folder's path.
    """
    signature = inspect.signature(original)

    @functools.wraps(original)
    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
        adapters_only = getattr(self, "_hf_peft_config_loaded", False)
        if not adapters_only and any(isinstance(module, Compressed) for module in self.modules()):
            return _save_sparse(self, signature.bind(self, *args, **kwargs).arguments)
        quantizer = getattr(self, "hf_quantizer", None)
        if isinstance(quantizer, quantizer_class) and not adapters_only:  # the model was made dense
            quantizer.remove_quantization_config(self)
        return original(self, *args, **kwargs)

    return save_pretrained
