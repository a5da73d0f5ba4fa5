"""Code blocks of README and guides run, page by page, beside tiny models of random weights. Nothing is downloaded.

The blocks of a page share a namespace and a folder. `yaml FILE` blocks are written to that file, `bash` blocks have
commands of sparsekit, and blocks that cannot run here have `not-run` after their language.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import transformers
from quantized_models import quantize
from short_search import make_short
from tiny_runs import tiny, write_reviews
from typer.testing import CliRunner

import sparsekit
from sparsekit.cli import app
from sparsekit.conversion.measuring import whole_model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models and data that pages refer to: a classifier, language models, a pruned encoder, reviews."""
    folder = tmp_path_factory.mktemp("pages")
    tiny(folder / "my-classifier", "classification", num_hidden_layers=1)
    tiny(folder / "my-language-model", "language", num_hidden_layers=1)
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    (folder / "my-language-model" / "chat_template.jinja").write_text(template)
    shutil.copytree(folder / "my-language-model", folder / "my-w4a16-model")
    quantize(folder / "my-w4a16-model", 4, None)
    tiny(folder / "my-pruned-encoder", "embedding", num_hidden_layers=1, hidden_size=128, intermediate_size=512)
    encoder = transformers.AutoModel.from_pretrained(folder / "my-pruned-encoder")
    sparsekit.prune(encoder, 0.9)
    sparsekit.finalize(encoder).save_pretrained(folder / "my-pruned-encoder")
    for name in ("train", "test"):
        write_reviews(folder / f"{name}.jsonl")
    return folder


def _blocks(page):
    """Line, language, words after it, code."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        yield text.count("\n", 0, match.start()) + 2, match[1], match[2], match[3]


def _type(line):
    """One command, as in a shell."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "sparsekit", line
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{line}: {result.output}{result.exception}"


def _run(page, line, language, words, code, names):
    if language == "yaml":
        Path(words).write_text(code)
    elif language == "bash":
        for command in code.replace("\\\n", " ").splitlines():
            _type(command)
    else:
        assert language == "python", f"{page}:{line}: {language}"
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)  # noqa: S102


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, models, tmp_path, monkeypatch):
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(whole_model, "_AT_MOST", 0.0)  # tests time nothing: as few rounds as there may be
    make_short(monkeypatch, tmp_path)
    names = {"__name__": page.stem}
    for line, language, words, code in _blocks(page):
        if words != "not-run":
            _run(page, line, language, words, code, names)


def test_most_code_runs():
    blocks = [words for page in PAGES for _, _, words, _ in _blocks(page)]
    assert len(blocks) >= 25
    assert blocks.count("not-run") <= 3


def test_the_reference_has_every_name_of_the_top_level():
    text = (ROOT / "docs" / "reference" / "index.md").read_text()
    rows = re.findall(r"^\| (`.*) \| \{doc\}", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(sparsekit.__all__) - {"__version__"}
