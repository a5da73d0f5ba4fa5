"""The typed stub agrees with the extension module."""

import ast
import re
from pathlib import Path

import sparsekit
from sparsekit import _C

STUB = ast.parse((Path(sparsekit.__file__).parent / "_C.pyi").read_text())


def stub_names() -> set[str]:
    names = {node.name for node in STUB.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return names | {node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign)}


def test_the_same_names():
    assert stub_names() == {name for name in vars(_C) if not name.startswith("__")}


def test_the_same_parameters():
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            signature = getattr(_C, node.name).__doc__.splitlines()[0]
            inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
            inside = re.sub(r"\[[^\]]*\]", "", inside)  # types such as numpy.ndarray[numpy.float32]
            given = re.findall(r"(\w+): ", inside)
            assert given == [argument.arg for argument in node.args.args], signature


def test_the_same_enumeration():
    enums = [node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == "Activation"]
    values = {item.targets[0].id: item.value.value for item in enums[0].body}
    assert values == {name: kind.value for name, kind in _C.Activation.__members__.items()}


def test_the_same_attribute_types():
    for node in STUB.body:
        if isinstance(node, ast.AnnAssign):
            assert type(getattr(_C, node.target.id)).__name__ == node.annotation.id
