"""Read a recipe from a YAML file; errors name the line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

import yaml
from pydantic import ValidationError

from sparsekit.recipes.recipe import Recipe, Stage
from sparsekit.recipes.yaml_text import read_yaml

Place: TypeAlias = Sequence[int | str]


def _line(node: yaml.Node | None, place: Place) -> int:
    """Line number of a place in a YAML document, or of the nearest enclosing node."""
    line = 1
    for step in place:
        if node is not None:
            line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _allowed(place: Place) -> list[str]:
    """Keys that are allowed in place of an unknown one."""
    model: Any = Recipe
    for step in place[:-1]:
        if isinstance(step, int):
            model = Stage
        else:
            annotation = model.model_fields[step].annotation
            model = next((one for one in get_args(annotation) or (annotation,) if hasattr(one, "model_fields")), model)
    return list(model.model_fields)


def _meant(word: Any, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _what(error: Any) -> str:
    """Message for one of pydantic's errors."""
    kind, place, given = error["type"], error["loc"], error["input"]
    if kind == "extra_forbidden":
        known = _allowed(place)
        return f"there is no such key{_meant(place[-1], known)}; allowed here: {', '.join(known)}"
    if kind == "literal_error":
        expected = error["ctx"]["expected"]
        return f"expected {expected}, got {reprlib.repr(given)}{_meant(given, expected.replace(chr(39), ' ').split())}"
    if kind == "model_type":
        return f"expected settings, such as 'task: classification', got {reprlib.repr(given)}"
    if kind == "missing":
        return "it is missing"
    said = str(error["msg"]).removeprefix("Value error, ")
    return said if kind == "value_error" else f"{said}, got {reprlib.repr(given)}"


def _name(place: Place) -> str:
    """A place in words, with stages counted from 1."""
    if len(place) > 1 and place[0] == "stages":
        return ", ".join([f"stage {int(place[1]) + 1}", *([".".join(map(str, place[2:]))] if place[2:] else [])])
    return ".".join(map(str, place)) or "the recipe"


def make_recipe(content: Any, before: Callable[[Place], str] = lambda _: "") -> Recipe:
    """Build a recipe from plain values.

    Args:
        content: the values.
        before: function that returns the prefix of an error message, given its place.

    Raises:
        ValueError: the values are not a recipe; one line per error, with what was found and what is allowed there.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = [f"{before(one['loc'])}{_name(one['loc'])}: {_what(one)}" for one in error.errors()]
        raise ValueError("\n".join(problems)) from error


def read_recipe(path: Path) -> Recipe:
    """Read the recipe in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML or not a recipe; with the line, what was found and what is allowed there.
    """
    content, node = read_yaml(path)
    return make_recipe(content, lambda place: f"{path}, line {_line(node, place)}: ")
