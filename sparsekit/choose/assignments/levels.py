"""What a layer may become: its sparsity, and what all layers of a candidate have in common."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

#: Sparsities that are tried of each layer; a level is an index of this table.
SPARSITIES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)

#: The level of every layer of the transformer blocks, by the name that `model.named_modules()` has for it.
Assignment: TypeAlias = dict[str, int]


@dataclass(frozen=True)
class Form:
    """How the weights of a candidate are stored.

    Attributes:
        dtype: of their values: "float32" or "int8".
        mask_structure: of their zeros: "unstructured" or "4x1".
    """

    dtype: str
    mask_structure: str

    @property
    def block(self) -> str:
        """Blocks of its masks, as `CSR.pack` names them: "1x1" or "4x1"."""
        return "1x1" if self.mask_structure == "unstructured" else self.mask_structure

    def __str__(self) -> str:
        """As tables have it: "int8 4x1"."""
        return self.dtype if self.mask_structure == "unstructured" else f"{self.dtype} {self.mask_structure}"


#: Forms that are tried.
FORMS = tuple(Form(dtype, structure) for structure, dtype in product(("unstructured", "4x1"), ("float32", "int8")))
