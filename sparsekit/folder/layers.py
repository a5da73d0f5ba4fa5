"""Run the sparse layers of a model folder with numpy, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.hub_cache import local_folder


@dataclass(frozen=True, eq=False, repr=False)
class StoredLayer:
    """A sparse linear layer: `activation(x @ weight.T + bias)`.

    >>> from sparsekit import CSR
    >>> weight = CSR.from_dense(np.eye(4, dtype=np.float32))
    >>> StoredLayer(weight.pack("int8"), None, "relu")
    StoredLayer(in_features=4, out_features=4, bias=False, dtype='int8', nnz=4, sparsity=0.750, activation='relu')
    """

    packed: runtime.Packed
    bias: NDArray[np.float32] | None  # shape [out_features]
    activation: str | None

    def __repr__(self) -> str:
        info = runtime.packed_info(self.packed)
        sparsity = 1.0 - info.nnz / max(1, info.out_features * info.in_features)
        block = "" if info.height == 1 else f", block={info.block!r}"
        activation = "" if self.activation is None else f", activation={self.activation!r}"
        return (
            f"StoredLayer(in_features={info.in_features}, out_features={info.out_features}, "
            f"bias={self.bias is not None}, dtype={info.dtype!r}, nnz={info.nnz}, sparsity={sparsity:.3f}"
            f"{block}{activation})"
        )

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the layer; see `sparsekit.runtime.linear`.

        Args:
            x: float32, shape [..., in_features].

        Returns:
            float32, shape [..., out_features].
        """
        return runtime.linear(x, self.packed, self.bias, self.activation)


def open_layers(folder: Path | str) -> dict[str, StoredLayer]:
    """Open the sparse layers of a model folder, or of a model in the local hub cache, by module name, packed.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is damaged or malformed, or a bias is not floating point.
    """
    stored = ModelFolder(local_folder(folder))
    sparse = [name for name, layer in stored.manifest.layers.items() if layer.in_model == "sparse"]
    return {
        name: StoredLayer(stored.packed(name), _bias(stored, name), stored.manifest.layers[name].activation)
        for name in sparse
    }


def _bias(stored: ModelFolder, layer: str) -> NDArray[np.float32] | None:
    name = f"{layer}.bias"
    name = stored.manifest.shared.get(name, name)
    if name not in stored.manifest.arrays:
        return None
    return stored.floats(name)
