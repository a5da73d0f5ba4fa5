"""Commands for language models: text on standard output, figures on standard error, chats by lines."""

import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
import tokenizers
from tiny_decoders import decoder
from tiny_encoders import encoder
from typer.testing import CliRunner

from sparsekit.cli import app, generating
from sparsekit.engine import Generator, Sampling

WORDS = {"<s>": 0, "</s>": 1, **{f"w{number}": number for number in range(2, 97)}}
PROMPT = "w5 w6 w7"
#: A word a role and a word an end, which the tokenizer knows.
TEMPLATE = """{% for message in messages %}\
{{ {'system': 'w2', 'user': 'w3', 'assistant': 'w4'}[message.role] }} {{ message.content }} {% endfor %}w4"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama whose words are its tokens."""
    folder = tmp_path_factory.mktemp("verbs") / "model"
    decoder("llama").eval().save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, "<s>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "generation_config.json").write_text("{}")
    return folder


def run(*arguments, lines=""):
    result = CliRunner().invoke(app, [*map(str, arguments)], input=lines.encode())
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result


def refusal(*arguments, lines=""):
    result = CliRunner().invoke(app, [*map(str, arguments)], input=lines.encode())
    assert result.exit_code == 1
    return str(result.exception)


def test_generate_prints_the_text_of_the_library(folder):
    expected = Generator(folder).generate(PROMPT, max_new_tokens=9)
    assert run("generate", folder, PROMPT, "--max-new-tokens", 9).stdout == expected + "\n"
    for arguments in ([], ["-"]):
        result = run("generate", folder, *arguments, "--max-new-tokens", 9, lines=PROMPT + "\n")
        assert result.stdout == expected + "\n", "from standard input"


def test_generate_tells_speed_and_memory(folder):
    told = run("generate", folder, PROMPT, "--max-new-tokens", 9).stderr
    number = r"[\d.,e+]+"
    memory = rf"; resident memory {number} [MG]B" if sys.platform == "linux" else ""
    assert re.fullmatch(
        rf"prompt of 3 tokens, 0 reused; prefill {number} tokens/s; first token after [\d.e-]+ s; "
        rf"decoding {number} tokens/s, 9 tokens{memory}\n",
        told,
    ), told
    assert "decoding" not in run("generate", folder, PROMPT, "--max-new-tokens", 1).stderr


def test_options_reach_the_text(folder):
    generator = Generator(folder, dtype="int8", embeddings="int8", context=30, cache_dtype="int8")
    sampling = {"temperature": 1.5, "top_k": 40, "top_p": 0.95, "min_p": 0.001, "repetition_penalty": 1.2, "seed": 7}
    expected = generator.generate(PROMPT, **sampling)
    given = [word for name, value in sampling.items() for word in (f"--{name.replace('_', '-')}", value)]
    opened = ["--dtype", "int8", "--embeddings", "int8", "--context", 30, "--cache-dtype", "int8"]
    result = run("generate", folder, PROMPT, *opened, *given)
    assert result.stdout == expected + "\n"
    assert "27 tokens;" in result.stderr, "as many as the context has room for"


def test_stop(folder):
    words = Generator(folder).generate(PROMPT, max_new_tokens=9).split()
    first, second = (next(word for word in words[least:] if words.index(word) >= least) for least in (2, 4))
    result = run("generate", folder, PROMPT, "--max-new-tokens", 9, "--stop", second, "--stop", first)
    assert result.stdout.split() == words[: words.index(first)]


def test_a_compiled_file(folder, tmp_path):
    run("compile", folder, "--out", tmp_path / "model.bin", "--target", "avx2")
    expected = Generator(folder).generate(PROMPT, max_new_tokens=9)
    tokenizer = ["--tokenizer", folder / "tokenizer.json"]
    found = run("generate", tmp_path / "model.bin", PROMPT, *tokenizer, "--max-new-tokens", 9)
    assert found.stdout == expected + "\n"
    assert "has no tokenizer" in refusal("generate", tmp_path / "model.bin", PROMPT)
    assert "has its own types" in refusal("generate", tmp_path / "model.bin", PROMPT, *tokenizer, "--dtype", "int8")


def test_what_is_refused(folder, tmp_path):
    assert "from 1 to 7 tokens, which leaves room" in refusal("generate", folder, "w5 " * 8, "--context", 8)
    assert "got 0" in refusal("generate", folder, lines="")
    assert "top_p=0.5 has no effect where temperature is 0" in refusal("generate", folder, PROMPT, "--top-p", 0.5)
    assert "float32, bfloat16 or int8, got 'int4'" in refusal("generate", folder, PROMPT, "--cache-dtype", "int4")
    encoder("bert").save_pretrained(tmp_path / "encoder")
    assert "is an encoder; open it with Encoder" in refusal("generate", tmp_path / "encoder", PROMPT)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "abacus"}')
    assert "abacus" in refusal("generate", tmp_path / "other", PROMPT)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert "there is no" in refusal("generate", tmp_path, PROMPT)
    assert "has no chat template" in refusal("chat", tmp_path, lines="w5\n")


def test_errors_have_no_traceback(folder):
    command = [sys.executable, "-m", "sparsekit", "generate", folder, PROMPT, "--top-p", "0.5"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert result.stderr.startswith("error: top_p=0.5 has no effect")
    assert result.stdout == ""


def test_chat_keeps_the_conversation(folder):
    generator = Generator(folder)
    messages = [{"role": "system", "content": "w9"}]
    expected = []
    for line in ("w10 w11", "w12"):
        messages.append({"role": "user", "content": line})
        answer = generator.chat(messages, max_new_tokens=6, repetition_penalty=1.3)
        messages.append({"role": "assistant", "content": answer})
        expected.append(answer)
    options = ["--system", "w9", "--max-new-tokens", 6, "--repetition-penalty", 1.3]
    for end in ("", "/exit\nw13\n"):
        result = run("chat", folder, *options, lines=f"w10 w11\n\nw12\n{end}")
        assert result.stdout.splitlines() == expected
        assert result.stderr == "", "no prompt without a terminal"


def test_chat_prompts_on_a_terminal(folder, monkeypatch, capsys):
    lines = io.StringIO("w10\n/exit\n")
    lines.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", lines)
    assert list(generating._lines()) == ["w10"]
    assert capsys.readouterr().err == "> > "


class Interrupted:
    """A generator whose first text is ended by Ctrl-C after a few pieces."""

    def __init__(self, generator):
        self._generator = generator
        self.messages = []
        self._left = 1

    def stream_chat(self, messages, **options):
        self.messages.append([dict(message) for message in messages])
        return self._first_interrupted(self._generator.stream_chat(messages, **options))

    def stream(self, prompt, **options):
        return self._first_interrupted(self._generator.stream(prompt, **options))

    def _first_interrupted(self, stream):
        self._left -= 1
        if self._left == 0:
            pieces = stream._run

            def run():
                for number, piece in enumerate(pieces):
                    if number == 3:
                        os.kill(os.getpid(), signal.SIGINT)
                    yield piece

            stream._run = run()
        return stream


def test_ctrl_c_ends_an_answer_and_the_chat_goes_on(folder, monkeypatch):
    interrupted = Interrupted(Generator(folder))
    monkeypatch.setattr(generating, "_open", lambda *_: interrupted)
    result = run("chat", folder, "--max-new-tokens", 9, lines="w10\nw12\n")
    first, second = result.stdout.splitlines()
    assert len(first.split()) == 3
    assert len(second.split()) == 9
    answer = interrupted.messages[1][1]
    assert answer["role"] == "assistant"
    assert answer["content"].startswith(first), "what was said stays in the conversation"


def test_ctrl_c_ends_a_text_with_its_figures(folder, monkeypatch):
    monkeypatch.setattr(generating, "_open", lambda *_: Interrupted(Generator(folder)))
    result = CliRunner().invoke(app, ["generate", str(folder), PROMPT])
    assert result.exit_code == 130
    assert len(result.stdout.split()) == 3
    assert result.stderr.startswith("prompt of 3 tokens")
    assert result.stderr.endswith("stopped\n")


def test_verbs_have_the_options_of_the_library():
    opened = set(inspect.signature(Generator).parameters) - {"model", "mmap"}
    assert {one.name for one in fields(generating.ModelOptions)} == opened
    texts = set(inspect.signature(Generator.stream).parameters) - {"self", "prompt", "cancel", "sampling"}
    assert {one.name for one in fields(generating.TextOptions)} == texts | {one.name for one in fields(Sampling)}
