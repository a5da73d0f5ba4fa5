"""Chat templates: render messages to a prompt, in Jinja's sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sparsekit.engine.tokenizing import TOKENIZER_OPTIONS, read_options
from sparsekit.extras import how_to_install
from sparsekit.io.untrusted import regular_file

if TYPE_CHECKING:
    from jinja2.nodes import Node
    from jinja2.parser import Parser

#: Newer folders keep the template in a separate file.
_TEMPLATE = "chat_template.jinja"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")

#: A message: "role" and "content".
Message = Mapping[str, str]


class ChatTemplate:
    """Renders messages to a prompt, as transformers' `apply_chat_template` does.

    Args:
        folder: folder with the template, in chat_template.jinja or tokenizer_config.json.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        ValueError: there is no template, or it is not a Jinja template.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from jinja2.exceptions import TemplateError
            from jinja2.ext import Extension
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"chats need jinja2: {how_to_install('engine')}", name=error.name) from error

        class Generation(Extension):
            """`{% generation %}`, which marks the model's answers for training: renders its content only."""

            tags = {"generation"}  # noqa: RUF012 - as the class above has it

            def parse(self, parser: Parser) -> list[Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        options = read_options(folder, TOKENIZER_OPTIONS)
        self._error = TemplateError
        self._special = {name: text_of_token(options.get(name)) for name in _SPECIAL}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": self._raise, "strftime_now": _now}
        try:
            self._template = environment.from_string(_template_of(folder, options))
        except TemplateError as error:
            raise ValueError(f"the chat template of {folder} is damaged: {error}") from error

    def prompt(self, messages: Sequence[Message]) -> str:
        """The prompt, up to where the model's answer begins.

        Raises:
            ValueError: a message lacks its role or content, or the template refuses them.
        """
        for message in messages:
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise ValueError(f"a message must have a role and content, got {message!r:.80}")
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except self._error as error:
            raise ValueError(f"the chat template refuses the messages: {error}") from error

    def _raise(self, message: str) -> NoReturn:
        raise self._error(message)


def _template_of(folder: Path, options: Mapping[str, Any]) -> str:
    if (folder / _TEMPLATE).exists():
        return regular_file(folder, _TEMPLATE).read_text(encoding="utf-8")
    found = options.get("chat_template")
    if isinstance(found, list):  # several named templates
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        raise ValueError(f"{folder} has no chat template; write the prompt yourself and call generate")
    return found


def text_of_token(token: Any) -> str:
    """Text of a special token in tokenizer options: a string, or an object that has one."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
