"""Map the tensors of an ONNX graph to the parameters of the PyTorch model that it was exported from.

torch's exporters turn the weight of `nn.Linear` round to [in_features, out_features] and leave it without its name
(`onnx::MatMul_470`, `val_92`). The layer is found by what is written at the `MatMul` that uses it:

    exporter of torch 2.5 and later   its scopes: "['', 'encoder', 'encoder.layer.0', ..., 'linear']"
    the one before it                 the bias added next, `encoder.layer.0.dense.bias`, or else the node's own name,
                                      `/encoder/layer.0/dense/MatMul`

Scopes also name what the newer exporter has merged, because it was equal to something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sparsekit.importers.onnx_file import initializers

#: Names of parameters in PyTorch; exporters call constants `onnx::Slice_65`, `/model/Constant`, `val_9` or `1463`.
_PARAMETER = re.compile(r"(?!val_\d+$)[A-Za-z_]\w*(\.\w+)*")
_NUMBERS = re.compile(r"(\.\d+)+")
_SCOPES = "pkg.torch.onnx.name_scopes"
_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_TARGET = re.compile(r"(?:PARAMETER|BUFFER) target='([^']+)'(?! persistent=False)")
#: What the inputs of a node are in the layer that it stands for. `MatMul` is apart.
_ROLES = {
    "Gather": ("weight",),
    "Gemm": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
}


def _scopes(node: Any) -> list[str]:
    """Names of the modules that a node was exported from, the outermost first; empty where they are not written."""
    found = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
    return re.findall(r"'([^']*)'", found[0])[:-1] if found else []


def _path_of(name: str) -> str:
    """Name of a module by that of its node: /body/body.2/body.2.0/MatMul gives body.2.0.

    A part is a module's own name, with the names before it where it is a number. Where the module that holds it was
    called too, these are there twice.
    """
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        own = parts[-1] if parts else ""
        if own and part.startswith(own) and _NUMBERS.fullmatch(part, len(own)):
            parts.pop()
        parts.append(part)
    return ".".join(parts).lstrip(".")


def is_turned(node: Any) -> bool:
    """Whether a node multiplies by a weight of [in_features, out_features]."""
    return not any(entry.name == "transB" and entry.i for entry in node.attribute)


class ParameterNames:
    """Parameters of the PyTorch model that a graph was exported from.

    Args:
        graph: of an ONNX model.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.tensors = initializers(graph)
        self._readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        signature = [entry.value for entry in graph.metadata_props if entry.key == _SIGNATURE]
        self.expected = set(_TARGET.findall(signature[0])) if signature else set()  # empty where it is not known

    def is_parameter(self, name: str) -> bool:
        """Whether a tensor of the graph has the name that it had in PyTorch."""
        return name in self.tensors and self._may_be(name) and _PARAMETER.fullmatch(name) is not None

    def uses(self) -> Iterator[tuple[str, str, bool]]:
        """Name in PyTorch, tensor, and whether that is turned round, of every tensor that a layer's node reads."""
        for node in self.nodes:
            if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] in self.tensors:
                yield from self._linear(node)
            elif node.op_type in _ROLES and _scopes(node):
                for name, role in zip(node.input, _ROLES[node.op_type], strict=False):
                    wanted = f"{_scopes(node)[-1]}.{role}"
                    if role and name in self.tensors and self._may_be(wanted):
                        turned = node.op_type == "Gemm" and role == "weight" and is_turned(node)
                        yield wanted, name, turned and not self.is_parameter(name)

    def products(self) -> dict[str, Any]:
        """The node that multiplies by a layer's weight, by the layer's name, as far as scopes say."""
        found = [node for node in self.nodes if node.op_type in ("MatMul", "Gemm")]
        return {_scopes(node)[-1]: node for node in found if _scopes(node)}

    def scales(self) -> dict[str, str]:
        """Tensors with one dimension that layers multiply by: the weights of norms that have no node of their own."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if node.op_type == "Mul" and _scopes(node):
                vectors = [name for name in node.input if name in self.tensors and len(self.tensors[name].dims) == 1]
                found.update((f"{_scopes(node)[-1]}.weight", name) for name in vectors)
        return found

    def _may_be(self, name: str) -> bool:
        return not self.expected or name in self.expected

    def _bias_after(self, node: Any) -> str | None:
        """The tensor that is added to a product which goes nowhere else."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "Add":
            return None
        others = [name for name in readers[0].input if name in self.tensors]
        return others[0] if len(others) == 1 else None

    def _layer_of(self, node: Any, bias: str | None) -> str:
        """Name of the linear layer that a `MatMul` stands for; empty where nothing says it."""
        if _scopes(node):
            return _scopes(node)[-1]
        layer = _path_of(node.name) if node.name.startswith("/") else ""
        if bias is None or not self.is_parameter(bias) or not bias.endswith(".bias"):
            return layer
        # Other tools keep one of several equal biases: the node's name must not speak against it.
        name = bias.removesuffix(".bias")
        return name if name.endswith(layer.rpartition(".")[2]) else layer

    def _linear(self, node: Any) -> Iterator[tuple[str, str, bool]]:
        weight, bias = node.input[1], self._bias_after(node)
        if len(self.tensors[weight].dims) != 2:
            return
        layer = self._layer_of(node, bias)
        if not layer or self.is_parameter(weight) or not self._may_be(f"{layer}.weight"):
            yield weight, weight, False
            return
        yield f"{layer}.weight", weight, True
        is_own = bias is not None and list(self.tensors[bias].dims) == list(self.tensors[weight].dims[1:])
        if bias is not None and is_own and _scopes(node) and self._may_be(f"{layer}.bias"):
            yield f"{layer}.bias", bias, False
