"""Read a recipe from a YAML file; what is wrong is said with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from sparsekit.compress.recipe import Recipe, Stage


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    """Line of what stands at a place of a YAML document, or of the nearest thing around it."""
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


def _allowed(place: Sequence[int | str]) -> str:
    """Keys that a recipe knows where an unknown one stands."""
    model: Any = Recipe
    for step in place[:-1]:
        if isinstance(step, int):
            model = Stage
        else:
            annotation = model.model_fields[step].annotation
            model = next((one for one in get_args(annotation) or (annotation,) if hasattr(one, "model_fields")), model)
    return ", ".join(model.model_fields)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or no recipe: with the line, what was found and what is allowed there.
    """
    text = path.read_text()
    try:
        content, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = []
        for one in error.errors():
            place = one["loc"]
            text = f"{path}, line {_line(node, place)}: {'.'.join(map(str, place)) or 'the recipe'}: {one['msg']}"
            if one["type"] == "extra_forbidden":
                text += f"; allowed here: {_allowed(place)}"
            problems.append(text)
        raise ValueError("\n".join(problems)) from error
