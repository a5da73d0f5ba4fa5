"""YAML subset of recipes: plain keys, lists, strings and numbers; anything else is refused before it is constructed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

#: Largest file, in bytes: enough for the rules of a thousand layers, and read within a second.
_LARGEST = 128 * 1024
#: Deepest nesting; a recipe needs six levels.
_DEEPEST = 20
#: Longest number, in characters.
_LONGEST = 40
_PLAIN = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


def _text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"the recipe {path} does not exist; expected a YAML file")
    if path.is_dir():
        raise ValueError(f"the recipe {path} is a folder; expected a YAML file")
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"the recipe {path} must have at most {_LARGEST} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: byte 0x{content[error.start]:02x} is no UTF-8") from error


def _check_events(path: Path, text: str) -> None:
    """Refuse aliases, which may expand without bound, tags and deep nesting, before anything is constructed."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        place = f"{path}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{place}: recipes have no aliases (*{event.anchor}); write out what it stands for")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"{place}: recipes have no tags ({event.tag}); leave it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"{place}: brackets are nested more than {_DEEPEST} deep")


def _check_nodes(path: Path, node: yaml.Node) -> None:
    """Refuse duplicate keys, and values other than strings, numbers, booleans, null, lists and mappings."""
    place = f"{path}, line {node.start_mark.line + 1}"
    if node.tag not in _PLAIN:
        kind = node.tag.rpartition(":")[2]
        raise ValueError(f"{place}: YAML reads {node.value!r} as a {kind}; put it in quotes")
    if isinstance(node, yaml.ScalarNode):
        if node.tag != _PLAIN[0] and len(node.value) > _LONGEST:
            raise ValueError(f"{place}: a number has at most {_LONGEST} digits, got {len(node.value)}")
        return
    lines: dict[str, int] = {}
    for key in [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []:
        here = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{path}, line {here}: a key must be a word")
        if key.value in lines:
            raise ValueError(f"{path}, line {here}: {key.value} stands twice, first in line {lines[key.value]}")
        lines[key.value] = here
    for one in node.value:
        for part in one if isinstance(one, tuple) else (one,):
            _check_nodes(path, part)


def read_yaml(path: Path) -> tuple[Any, yaml.Node | None]:
    """The plain values in a YAML file, and its nodes with line numbers; both None for an empty file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is too large, not UTF-8, not YAML, or uses YAML features that recipes refuse.
    """
    text = _text(path)
    try:
        _check_events(path, text)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _check_nodes(path, node)
        return yaml.safe_load(text), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        why = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{path}, line {line}: no YAML: {why}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"{path}, line {line}: no YAML: character {chr(error.character)!r}") from error
