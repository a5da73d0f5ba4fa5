"""Let transformers itself open and save model folders: `from_pretrained`, `pipeline`, sentence-transformers.

transformers reads special weight formats through quantizers, which it selects by `quant_method` in `config.json`. Ours
replaces layers while the model is on meta, hides the stored tensors from transformers' loader, and fills them in
afterwards with the same code as `load`, so that both build the same model and make the same checks. Everything that
depends on that loader is in this file; `registration` imports it when transformers is imported.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from sparsekit.checkpoint.fitting import check_names, fit
from sparsekit.checkpoint.loading import check_filled, fill
from sparsekit.checkpoint.module_state import computed_buffers
from sparsekit.checkpoint.tensors import named_tensors
from sparsekit.checkpoint.transformers.buffers import check_room, fill_buffers
from sparsekit.checkpoint.transformers.models import WEIGHTS_KEY, check_format
from sparsekit.checkpoint.transformers.part import lacking, part_for
from sparsekit.checkpoint.transformers.save_pretrained import saving_sparse
from sparsekit.conversion import densify
from sparsekit.folder.layout import FORMAT, METHOD
from sparsekit.folder.manifest import Manifest
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.file_names import MANIFEST
from sparsekit.nn import Compressed
from sparsekit.pruning.split_model import split_modules


class SparseConfig(QuantizationConfigMixin):
    """`quantization_config` in a folder's `config.json`; everything else is in `sparsekit.json`.

    Args:
        quant_method: "sparsekit".
        format: version of the folder's format.

    Raises:
        ValueError: this version does not read the format.
    """

    quant_method: Any  # transformers' type allows only its own methods

    def __init__(self, quant_method: str = METHOD, format: int = FORMAT) -> None:
        check_format(format)
        self.quant_method = quant_method
        self.format = format


@contextmanager
def _outside_of_making() -> Iterator[None]:
    """Suspend the state in which transformers builds models: new tensors on meta, in the model's dtype."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _open(files: list[str] | None) -> ModelFolder:
    if not files:
        raise ValueError("a sparse model needs its weight files; open the folder with from_pretrained(folder)")
    folder = Path(files[0]).parent
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder} has no {MANIFEST}; transformers downloads only some files of a model: get all with "
                         "huggingface_hub.snapshot_download(name, local_dir=folder) and open that folder")  # fmt: skip
    return ModelFolder(folder)


def _hide(model: Any, stored: ModelFolder, part: ModelFolder, new: set[str]) -> Callable[[], None]:
    """Show the loader only the tensors `new` of a model, and keep it from reporting the others as unexpected.

    Returns:
        Function that undoes it.
    """

    def forget(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in set(state) - new:
            del state[name]

    hook = model.register_state_dict_post_hook(forget)
    left = set(stored.files) - {name for _, name in part.files.values()}
    pattern = f"^(?!({'|'.join(re.escape(name) for name in sorted(left))})$)"
    reported = model._keys_to_ignore_on_load_unexpected
    model._keys_to_ignore_on_load_unexpected = {*(reported or ()), pattern}

    def show() -> None:
        hook.remove()
        model._keys_to_ignore_on_load_unexpected = reported

    return show


def _check_ties(model: Any, manifest: Manifest, new: set[str]) -> None:
    """Refuse a new head that takes its weight from embeddings, where these are in int8."""
    tables = {f"{name}.weight" for name in manifest.embeddings}
    for name, other in model.all_tied_weights_keys.items():
        if name in new and other in tables:
            raise ValueError(f"{name} is tied to embeddings that the folder holds in int8; make its model dense first, "
                             "with sparsekit.load, densify and save_pretrained")  # fmt: skip


def _mark_initialized(model: nn.Module, new: set[str]) -> None:
    """Let only modules with tensors in `new` be initialized: others may access the `weight` of a sparse layer."""
    parts = [name.split(".") for name in new]
    holders = {".".join(part[:length]) for part in parts for length in range(len(part))}
    for name, module in model.named_modules():
        module._is_hf_initialized = name not in holders


def _buffers_of(model: nn.Module) -> Callable[[], None]:
    """Save the non-persistent buffers: the loader replaces them with uninitialized memory.

    Returns:
        Function that restores them.
    """
    kept = [(module, key, module._buffers[key]) for _, module, key in computed_buffers(model)]

    def give_back() -> None:
        for module, key, buffer in kept:
            module._buffers[key] = buffer

    return give_back


class SparseQuantizer(HfQuantizer):
    """Opens folders of `sparsekit.save` inside transformers' `from_pretrained`."""

    requires_calibration = True  # refuses a dense folder together with quantization_config=SparseConfig()

    def __init__(self, quantization_config: SparseConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._pending: list[tuple[ModelFolder, list[Callable[[], None]]]] = []  # between the two steps of loading

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse devices other than the CPU."""
        devices = device_map.values() if isinstance(device_map, dict) else [device_map]
        other = sorted({str(device) for device in devices} - {"None", "auto", "cpu"})
        if other:
            raise ValueError(f"sparse layers run on the CPU, got device_map with {', '.join(other)}; leave it out")

    def update_device_map(self, device_map: Any) -> Any:
        """Put everything on the CPU."""
        return None if device_map is None else {"": "cpu"}

    def update_attn_implementation(self, config: Any) -> Any:
        """Remove the entry that keeps transformers from opening a folder without this class."""
        config.__dict__.pop(WEIGHTS_KEY, None)
        return config

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any) -> list[Any]:
        """No conversions: the names in the folder are those of the model."""
        return []

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        stored = _open(kwargs.get("checkpoint_files"))
        stored.read_ahead()
        with _outside_of_making():
            with split_modules(model):  # the folder may contain split modules
                part = part_for(stored, model)
            blank = copy.deepcopy(model)
            fit(model, part.manifest)
            new = lacking(model, part.manifest)
            check_names(model, part.manifest, new)
            tensors = dict(named_tensors(model))
            check_room([tensors[name] for name in new], part.memory_limit)
            fill_buffers(model, blank, part.memory_limit)
        _check_ties(model, part.manifest, new)
        ties = model.all_tied_weights_keys.items()  # sparse layers have no weight to tie
        model.all_tied_weights_keys = {name: other for name, other in ties if {name, other} <= set(tensors)}
        _mark_initialized(model, new)
        self._pending = [(part, [_hide(model, stored, part, new), _buffers_of(model)])]
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        part, undo = self._pending.pop()
        for step in undo:
            step()
        fill(model, part)
        new = lacking(model, part.manifest)
        if new:  # tie a new head to the embeddings, which were just loaded
            model.tie_weights(missing_keys=new, recompute_mapping=False)
        check_filled(model)
        if model.dtype != model.config.dtype:  # from_pretrained was called with another dtype
            nn.Module.to(model, model.config.dtype)
        if not any(isinstance(module, Compressed) for module in model.modules()):
            self.remove_quantization_config(model)
        return model

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        return densify(model)

    def remove_quantization_config(self, model: Any) -> None:
        """Mark a model without sparse layers as not quantized: some code computes differently in quantized models."""
        super().remove_quantization_config(model)  # type: ignore[no-untyped-call]
        for module in model.modules():
            if hasattr(module, "config"):
                vars(module.config).pop("_is_quantized", None)

    def is_serializable(self) -> bool:
        """Models can be saved, see `saving_sparse`."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Sparse weights are frozen."""
        return False


def register() -> None:
    """Register sparsekit's folders with transformers. Idempotent."""
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(SparseConfig)
        register_quantizer(METHOD)(SparseQuantizer)
        PreTrainedModel.save_pretrained = saving_sparse(PreTrainedModel.save_pretrained, SparseQuantizer)  # type: ignore[method-assign]
