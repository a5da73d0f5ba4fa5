"""torch operators, one per file: schema, fake, CPU implementation, gradients."""

from sparsekit.ops.attention import attention
from sparsekit.ops.layer_norm import add_layer_norm
from sparsekit.ops.library import is_plain
from sparsekit.ops.linear import linear

__all__ = ["add_layer_norm", "attention", "is_plain", "linear"]
