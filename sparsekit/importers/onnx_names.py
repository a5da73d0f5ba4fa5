"""Map the tensors of an ONNX graph to the parameters of the PyTorch model that it was exported from.

torch's exporters transpose the weight of `nn.Linear` to [in_features, out_features] and drop its name
(`onnx::MatMul_470`, `val_92`). The layer is identified by the `MatMul` that uses the weight:

    exporter of torch 2.5 and later   its scopes: "['', 'encoder', 'encoder.layer.0', ..., 'linear']"
    the one before it                 the bias added next, `encoder.layer.0.dense.bias`, or else the node's own name,
                                      `/encoder/layer.0/dense/MatMul`

Scopes also identify tensors that the newer exporter has merged because they are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sparsekit.importers.onnx_file import initializers

#: Parameter names in PyTorch; exporters call constants `onnx::Slice_65`, `/model/Constant`, `val_9` or `1463`.
_PARAMETER = re.compile(r"(?!val_\d+$)[A-Za-z_]\w*(\.\w+)*")
_NUMBERS = re.compile(r"(\.\d+)+")
_SCOPES = "pkg.torch.onnx.name_scopes"
_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_TARGET = re.compile(r"(?:PARAMETER|BUFFER) target='([^']+)'(?! persistent=False)")
#: Operator -> parameters of the layer that its inputs correspond to. `MatMul` is handled separately.
_ROLES = {
    "Gather": ("weight",),
    "Gemm": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
}


def _scopes(node: Any) -> list[str]:
    """Names of the modules that a node was exported from, outermost first; empty if the file does not record them."""
    found = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
    return re.findall(r"'([^']*)'", found[0])[:-1] if found else []


def _path_of(name: str) -> str:
    """Module name from a node name: /body/body.2/body.2.0/MatMul gives body.2.0.

    Each part is a module's own name; a number is preceded by the names before it, which appear twice if the enclosing
    module was called too.
    """
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        own = parts[-1] if parts else ""
        if own and part.startswith(own) and _NUMBERS.fullmatch(part, len(own)):
            parts.pop()
        parts.append(part)
    return ".".join(parts).lstrip(".")


def is_turned(node: Any) -> bool:
    """Whether a node multiplies by a transposed weight, [in_features, out_features]."""
    return not any(entry.name == "transB" and entry.i for entry in node.attribute)


class ParameterNames:
    """Parameters of the PyTorch model that a graph was exported from.

    Args:
        graph: graph of an ONNX model.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.tensors = initializers(graph)
        self._readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        signature = [entry.value for entry in graph.metadata_props if entry.key == _SIGNATURE]
        self.expected = set(_TARGET.findall(signature[0])) if signature else set()  # empty if unknown

    def is_parameter(self, name: str) -> bool:
        """Whether a tensor of the graph has kept its PyTorch name."""
        return name in self.tensors and self._may_be(name) and _PARAMETER.fullmatch(name) is not None

    def uses(self) -> Iterator[tuple[str, str, bool]]:
        """PyTorch name, graph name, and whether it is transposed, for every tensor that a layer's node reads."""
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
        """Layer name -> node that multiplies by its weight, as far as scopes tell."""
        found = [node for node in self.nodes if node.op_type in ("MatMul", "Gemm")]
        return {_scopes(node)[-1]: node for node in found if _scopes(node)}

    def scales(self) -> dict[str, str]:
        """1-D tensors that layers multiply by: the weights of norms that were exported as elementary operators."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if node.op_type == "Mul" and _scopes(node):
                vectors = [name for name in node.input if name in self.tensors and len(self.tensors[name].dims) == 1]
                found.update((f"{_scopes(node)[-1]}.weight", name) for name in vectors)
        return found

    def _may_be(self, name: str) -> bool:
        return not self.expected or name in self.expected

    def _bias_after(self, node: Any) -> str | None:
        """The tensor that is added to a product, if nothing else reads that product."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "Add":
            return None
        others = [name for name in readers[0].input if name in self.tensors]
        return others[0] if len(others) == 1 else None

    def _layer_of(self, node: Any, bias: str | None) -> str:
        """Name of the linear layer that a `MatMul` was exported from; empty if unknown."""
        if _scopes(node):
            return _scopes(node)[-1]
        layer = _path_of(node.name) if node.name.startswith("/") else ""
        if bias is None or not self.is_parameter(bias) or not bias.endswith(".bias"):
            return layer
        # Other tools store equal biases once, so the bias may be another layer's: the node's name must agree.
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
