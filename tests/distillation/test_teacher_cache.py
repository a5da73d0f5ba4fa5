"""The cache of a teacher's outputs: computed once, never stale, valid after an interruption."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from sparsekit.distillation import Teacher, TeacherCache


class Output(NamedTuple):
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(12))
        self.head = nn.Linear(4, 9)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return Output(self.head(x), (*states[:-1], x))


class Tokenizer:
    def __init__(self, words):
        self.words = words

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Teacher(Model())


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [{"x": torch.randn(size, 4)} for size in (3, 3, 2)]


def test_answers_are_asked_once_and_read_back(tmp_path, teacher, batches):
    seen = []
    cache = TeacherCache(tmp_path, teacher, batches, dtype=torch.float32, on_batch=seen.append)
    assert (len(cache), seen, teacher.model.calls) == (3, [0, 1, 2], 3)
    again = TeacherCache(tmp_path, teacher, batches, dtype=torch.float32)
    assert teacher.model.calls == 3
    for batch, answers in zip(batches, again, strict=True):
        wanted = teacher(**batch)
        assert torch.equal(answers["logits"], wanted.logits)
        assert len(answers["hidden_states"]) == 12
        for mine, other in zip(answers["hidden_states"], wanted.hidden_states, strict=True):
            assert torch.equal(mine, other)
    assert again[-1]["logits"].shape == (2, 9)


def test_outputs_that_share_memory_are_kept(tmp_path):
    class Twice(nn.Module):
        def forward(self, x):
            return {"last": x, "hidden_states": (x, x)}

    x = torch.randn(2, 3)
    answers = TeacherCache(tmp_path, Teacher(Twice()), [{"x": x}], dtype=torch.float32)[0]
    assert torch.equal(answers["last"], x)
    assert torch.equal(answers["hidden_states"][1], x)


def test_floats_are_rounded_and_outputs_chosen(tmp_path, teacher, batches):
    cache = TeacherCache(tmp_path, teacher, batches, keep=["logits"])
    assert set(cache[0]) == {"logits"}
    assert torch.equal(cache[0]["logits"], teacher(**batches[0]).logits.half())


def test_only_the_largest_logits(tmp_path, teacher, batches):
    cache = TeacherCache(tmp_path, teacher, batches, keep=["logits"], top_k=3, dtype=torch.float32)
    logits = teacher(**batches[0]).logits
    assert torch.equal(cache[0]["top_logits"], logits.topk(3).values)
    assert torch.equal(logits.gather(-1, cache[0]["top_indices"].long()), cache[0]["top_logits"])
    with pytest.raises(ValueError, match="top_k is of 'logits', and the teacher gives hidden_states"):
        TeacherCache(tmp_path / "other", teacher, batches, keep=["hidden_states"], top_k=3)


def test_a_run_that_was_stopped_goes_on(tmp_path, teacher, batches):
    class StoppedError(Exception):
        pass

    def stop(number: int) -> None:
        if number == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        TeacherCache(tmp_path, teacher, batches, on_batch=stop)
    TeacherCache(tmp_path, teacher, batches)
    assert teacher.model.calls == 3


def test_answers_to_something_else_are_refused(tmp_path, teacher, batches):
    words = Tokenizer(["a", "b"])
    TeacherCache(tmp_path, teacher, batches, tokenizer=words)
    changed = [*batches[:2], {"x": batches[2]["x"] + 1e-6}]
    for other, message in (
        ({"batches": changed}, "another data;"),
        ({"batches": batches[:2]}, "another data and batches;"),
        ({"tokenizer": Tokenizer(["b", "a"])}, "another tokenizer;"),
        ({"dtype": torch.float32}, "another dtype;"),
        ({"keep": ["logits"]}, "another keep;"),
    ):
        with pytest.raises(ValueError, match=message):
            TeacherCache(tmp_path, teacher, **{"batches": batches, "tokenizer": words, **other})
    with torch.no_grad():
        teacher.model.head.bias[0] += 1e-3
    with pytest.raises(ValueError, match="another teacher; use another folder, or delete it"):
        TeacherCache(tmp_path, teacher, batches, tokenizer=words)


def test_damaged_files_are_named(tmp_path, teacher, batches):
    cache = TeacherCache(tmp_path, teacher, batches)
    path = tmp_path / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"00001.safetensors is damaged \(.*\); delete it"):
        cache[1]
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(ValueError, match="cache.json is damaged"):
        TeacherCache(tmp_path, teacher, batches)


def test_what_cannot_be_kept_is_refused(tmp_path, teacher, batches):
    with pytest.raises(ValueError, match="no batches"):
        TeacherCache(tmp_path, teacher, [])
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        TeacherCache(tmp_path, teacher, batches, top_k=0)
    with pytest.raises(ValueError, match="the teacher gives logits, hidden_states, not attentions"):
        TeacherCache(tmp_path, teacher, batches, keep=["attentions"])
    with pytest.raises(IndexError, match="batches 0 to 2, got 3"):
        TeacherCache(tmp_path / "other", teacher, batches)[3]

    class Odd(nn.Module):
        def forward(self, x):
            return {"logits": x, "cache": object()}

    assert list(TeacherCache(tmp_path / "odd", Teacher(Odd()), batches)[0]) == ["logits"]
    with pytest.raises(ValueError, match="gives logits, not cache"):
        TeacherCache(tmp_path / "other-odd", Teacher(Odd()), batches, keep=["cache"])
