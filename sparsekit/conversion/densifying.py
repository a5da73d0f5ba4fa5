"""Make a converted model dense again."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from sparsekit.conversion.kept_reports import forget_report
from sparsekit.conversion.places import keep_bias
from sparsekit.fusion.activations import split_activations
from sparsekit.nn import Int8Embedding, SparseLinear
from sparsekit.pruning.split_model import replace_modules
from sparsekit.splitting import SplitModule, pad_encoders

Model = TypeVar("Model", bound=nn.Module)


def densify(model: Model) -> Model:
    """Undo `convert`, in place: every `SparseLinear` becomes a dense layer of its original class. Returns the model.

    Every `Int8Embedding` becomes an `nn.Embedding` with the dequantized values.

    Raises:
        ValueError: the user built a layer with a fused activation function, which dense layers do not have.
    """
    forget_report(model)
    split_activations(model)
    sparse = [module for module in model.modules() if isinstance(module, SparseLinear)]
    dense: dict[nn.Module, nn.Module] = {module: module.to_linear() for module in sparse}
    for old, new in dense.items():
        keep_bias(old, new)
    dense |= {module: module.to_embedding() for module in model.modules() if isinstance(module, Int8Embedding)}
    replace_modules(model, dense)
    split = [module for module in model.modules() if isinstance(module, SplitModule)]
    replace_modules(model, {module: module.merge() for module in split})
    pad_encoders(model, SparseLinear)
    return model
