"""Files are written atomically."""

import json

import pytest

from sparsekit.io.atomic_file import printable, write_atomically, write_json


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("encoder.layer.0 [red]", "encoder.layer.0 [red]"),
        ("grün 层", "grün 层"),
        ("\x1b[2J\r\b", "\\x1b[2J\\r\\x08"),
        ("a\u202eb\u200b", "a\\u202eb\\u200b"),
        ("a\nb\tc", "a\nb\\tc"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text, shown):
    assert printable(text, keep="\n") == shown
