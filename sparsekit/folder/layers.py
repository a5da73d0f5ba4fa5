"""Run the sparse layers of a model folder from numpy, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.hub_cache import local_folder


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A sparse linear layer: `activation(x @ weight.T + bias)`."""

    packed: runtime.Packed
    bias: NDArray[np.float32] | None  # shape [out_features]
    activation: str | None

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the layer; see `sparsekit.runtime.linear`.

        Args:
            x: float32, shape [..., in_features].

        Returns:
            float32, shape [..., out_features].
        """
        return runtime.linear(x, self.packed, self.bias, self.activation)


def open_layers(folder: Path | str) -> dict[str, StoredLayer]:
    """The sparse layers of a model folder, or of a model in the local hub cache, by module name, packed.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is damaged or malformed, or a layer has a bias that is not of floats.
    """
    stored = ModelFolder(local_folder(folder))
    sparse = [name for name, layer in stored.manifest.layers.items() if layer.held == "sparse"]
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
