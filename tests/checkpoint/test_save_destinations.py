"""Invalid destinations are refused before anything is written; nothing fails after the new folder is in place."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tiny_runs import tiny
from torch import nn

from sparsekit import load, prune, save
from sparsekit.checkpoint import convert_folder
from sparsekit.io import atomic_folder as folders
from sparsekit.io import destination, locks
from sparsekit.recipes.tasks import TASKS

FORK = multiprocessing.get_context("fork")


def model(value: float = 1.0) -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        made[0].weight.fill_(value)
    return made


def value_in(folder: Path) -> float:
    return float(load(folder, model=model())[0].weight[0, 0])


def tree(folder: Path) -> dict[str, bytes]:
    """Contents of all files in a folder, and the names of other entries."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def refused(folder: Path, error: type[Exception], message: str, around: Path) -> None:
    """Saving fails with a clear error before anything is written or changed."""
    before = tree(around)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders.tempfile, "mkdtemp", lambda **_: pytest.fail("something was written"))
        with pytest.raises(error, match=message):
            save(model(), folder)
    assert tree(around) == before


def test_files_and_links(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "to-file").symlink_to(tmp_path / "file")
    refused(tmp_path / "file", ValueError, "it is a file", tmp_path)
    refused(tmp_path / "to-file", ValueError, "it is a file", tmp_path)
    refused(tmp_path / "file" / "model", ValueError, "cannot be made, .*file is a file", tmp_path)
    refused(tmp_path / "file" / "deep" / "model", ValueError, "cannot be made, .*file is a file", tmp_path)
    refused(tmp_path / "circle", ValueError, "leads nowhere", tmp_path)


def test_convert_says_so_before_it_opens_the_model(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file must be a folder or not be there yet, it is a file"):
        convert_folder(str(tmp_path / "no-model"), tmp_path / "file")


def test_links_to_folders_stay_links(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "new-link").symlink_to(tmp_path / "not-yet")
    for name, place in (("link", "there"), ("new-link", "not-yet")):
        save(model(2.0), tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert value_in(tmp_path / place) == 2.0


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "verification.safetensors"])
def test_a_folder_of_something_else(tmp_path, name):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "code.py").write_text("mine")
    (tmp_path / "project" / name).write_text("mine")
    refused(tmp_path / "project", ValueError, f"holds no model, and its {name} would be replaced", tmp_path)
    (tmp_path / "project" / name).unlink()
    save(model(), tmp_path / "project")
    (tmp_path / "project" / name).write_text("the model's")
    save(model(3.0), tmp_path / "project")
    assert value_in(tmp_path / "project") == 3.0
    assert (tmp_path / "project" / "code.py").read_text() == "mine"


def as_nobody(function: Callable[..., None], *arguments: object) -> None:
    """Run a function in a process of a user without rights; root may write everywhere."""

    def run() -> None:
        torch.set_num_threads(1)
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        function(*arguments)

    child = FORK.Process(target=run)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may reach and write to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def save_read_only(place: Path) -> None:
    for folder, closed in ((place / "a" / "model", place / "a"), (place / "b", place / "b")):
        save(model(), folder)
        closed.chmod(0o555)
        refused(folder, PermissionError, f"cannot be written: this user may not change {closed}", place)
        assert value_in(folder) == 1.0
    refused(place / "a" / "other" / "deep", PermissionError, "may not change", place)


def test_read_only_folders(place):
    as_nobody(save_read_only, place)


def save_with_read_only_inside(place: Path) -> None:
    save(model(), place / "model")
    (place / "model" / "mine").mkdir()
    (place / "model" / "mine" / "notes").write_text("mine")
    (place / "model" / "mine").chmod(0o555)
    save(model(2.0), place / "model")
    assert value_in(place / "model") == 2.0
    assert (place / "model" / "mine" / "notes").read_text() == "mine"
    assert [path.name for path in place.iterdir()] == ["model"], "the old folder is gone"


def test_a_read_only_folder_inside_is_kept(place):
    as_nobody(save_with_read_only_inside, place)


def save_where_one_cannot_look(place: Path) -> None:
    (place / "drop").mkdir()
    (place / "drop").chmod(0o333)
    for value in (1.0, 2.0):
        save(model(value), place / "drop" / "model")
        assert value_in(place / "drop" / "model") == value
    (place / "drop").chmod(0o755)
    assert [path.name for path in (place / "drop").iterdir()] == ["model"]


def test_a_folder_that_may_be_written_and_not_listed(place):
    as_nobody(save_where_one_cannot_look, place)


@pytest.fixture(params=["bind", "tmpfs"])
def mounted(request, tmp_path) -> Iterator[Path]:
    """A mount point with a blank in its name; of the tmpfs, with room for 64 kB."""
    folder = tmp_path / "mount point"
    folder.mkdir()
    how = ["--bind", str(folder)] if request.param == "bind" else ["-t", "tmpfs", "-o", "size=64k", "none"]
    if subprocess.run(["mount", *how, str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_mount_points(mounted):
    refused(mounted, ValueError, "is a mount point and cannot be replaced at once; save to a folder inside it", mounted)
    save(model(), mounted / "model")
    assert value_in(mounted / "model") == 1.0


@pytest.mark.parametrize("mounted", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("dense", [True, False])
def test_a_full_disk(mounted, dense):
    save(model(), mounted / "model")
    before = tree(mounted)
    with pytest.raises(OSError, match="model cannot be written and is as it was: .*No space left"):
        save(nn.Sequential(nn.Linear(200, 200)), mounted / "model", dense=dense)
    assert tree(mounted) == before


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_folders_that_cannot_be_moved(tmp_path, monkeypatch, number):
    """As mount points that are not seen as such, and those of a container's image."""
    save(model(), tmp_path / "model")
    before = tree(tmp_path)

    def rename(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match=f"cannot be moved and is as it was .{os.strerror(number)}"):
        folders_replaced(tmp_path / "model")
    assert tree(tmp_path) == before


def folders_replaced(folder: Path) -> None:
    with folders.replaced_folder(folder, lambda name: name == "model.safetensors") as new:
        (new / "model.safetensors").write_text("new")


def without_exchange(monkeypatch) -> None:
    monkeypatch.setattr(folders, "_exchanged", lambda *_: False)


def test_nothing_is_left_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    without_exchange(monkeypatch)
    for value in (1.0, 2.0):
        save(model(value), tmp_path / "model")
        assert value_in(tmp_path / "model") == value
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("exchanged", [True, False])
def test_what_fails_after_the_exchange_is_no_error(tmp_path, monkeypatch, exchanged):
    save(model(), tmp_path / "model")
    if not exchanged:
        without_exchange(monkeypatch)
    flush = folders._flush

    def fails_on_the_folder_above(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.EINVAL, "no fsync of folders here")
        flush(path)

    monkeypatch.setattr(folders, "_flush", fails_on_the_folder_above)
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *_, **__: None)
    save(model(2.0), tmp_path / "model")
    assert value_in(tmp_path / "model") == 2.0
    monkeypatch.undo()
    save(model(3.0), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "and the next one removes what is left"


def killed_between_the_steps(folder: Path) -> None:
    torch.set_num_threads(1)
    folders._exchanged = lambda *_: False  # of this process
    rename = Path.rename

    def rename_and_die(path: Path, other: Path) -> None:
        rename(path, other)
        if other.name == "old":
            os.kill(os.getpid(), signal.SIGKILL)

    Path.rename = rename_and_die  # type: ignore[assignment]
    save(model(2.0), folder)


def test_a_kill_between_the_steps_loses_nothing(tmp_path):
    save(model(), tmp_path / "model")
    (tmp_path / "model" / "mine").write_text("mine")
    child = FORK.Process(target=killed_between_the_steps, args=(tmp_path / "model",))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    save(model(3.0), tmp_path / "model")
    assert value_in(tmp_path / "model") == 3.0
    assert (tmp_path / "model" / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_old_folder_that_cannot_come_back_is_kept(tmp_path, monkeypatch):
    save(model(), tmp_path / "model")
    without_exchange(monkeypatch)
    rename = Path.rename

    def only_aside(path: Path, other: Path) -> None:
        if other.name != "old":
            raise OSError(errno.EIO, "the disk is gone")
        rename(path, other)

    monkeypatch.setattr(Path, "rename", only_aside)
    with pytest.raises(OSError, match=r"cannot be put in place .*the old one is .*/old now"):
        folders_replaced(tmp_path / "model")
    monkeypatch.undo()
    save(model(2.0), tmp_path / "other")
    save(model(2.0), tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]


def test_a_lock_is_waited_for_and_not_for_ever(tmp_path, monkeypatch):
    save(model(), tmp_path / "model")
    monkeypatch.setattr(locks, "_LONGEST_WAIT", 0.1)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        holder = f"(process {os.getpid()}|another process); wait for it or end it, and save again"
        refused(tmp_path / "model", TimeoutError, f"has been locked for 0 s by {holder}", tmp_path)
    finally:
        os.close(handle)
    save(model(2.0), tmp_path / "model")
    assert value_in(tmp_path / "model") == 2.0


def test_mount_points_where_the_system_does_not_list_them(tmp_path, monkeypatch):
    assert not destination.is_mount(tmp_path)
    assert destination.is_mount(Path("/proc"))
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(OSError("none")))
    assert destination.is_mount(Path("/"))
    assert not destination.is_mount(tmp_path)


class Tokens:
    """Writes files as a tokenizer does."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("new")


def test_nothing_of_an_older_tokenizer_stays_beside_a_new_one(tmp_path):
    save(model(), tmp_path / "model", tokenizer=Tokens())
    for name in ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "merges.txt", "notes.txt"):
        (tmp_path / "model" / name).write_text("old")
    save(model(), tmp_path / "model")
    assert (tmp_path / "model" / "chat_template.jinja").exists(), "no other tokenizer was given"
    save(model(), tmp_path / "model", tokenizer=Tokens())
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"tokenizer.json", "notes.txt", "model.safetensors", "sparsekit.json", "README.md"}


def test_a_configuration_alone_is_a_model_folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    save(model(), tmp_path / "model")
    assert value_in(tmp_path / "model") == 1.0


def test_children_that_were_forked_keep_no_lock(tmp_path):
    with locks.one_at_a_time(tmp_path):
        child = FORK.Process(target=time.sleep, args=(30,))
        child.start()
    try:
        handle = os.open(tmp_path, os.O_RDONLY)
        assert locks.try_lock(handle)
        os.close(handle)
    finally:
        child.kill()
        child.join()


def test_convert_does_not_lose_the_weights_that_it_was_given(tmp_path):
    tiny(tmp_path / "model", "classification", num_hidden_layers=1)
    before = tree(tmp_path / "model")
    with pytest.raises(ValueError, match="is the folder to convert"):
        convert_folder(str(tmp_path / "model"), tmp_path / "model", dtype="int8")
    assert tree(tmp_path / "model") == before


def test_a_folder_without_a_model_is_refused(tmp_path):
    tiny(tmp_path / "run" / "model", "classification", num_hidden_layers=1)
    with pytest.raises(FileNotFoundError, match=r"run is no model folder: it has no config.json; give the folder"):
        convert_folder(str(tmp_path / "run"), tmp_path / "out")


def test_masks_that_transformers_saved_are_refused(tmp_path):
    folder = tiny(tmp_path / "model", "classification", num_hidden_layers=1)
    masked = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    prune(masked, 0.5)
    masked.save_pretrained(folder)
    for read in (lambda: convert_folder(str(folder), tmp_path / "out"), lambda: TASKS["classification"].load(folder)):
        with pytest.raises(ValueError, match=r"parametrized weight, .*; call sparsekit.finalize\(model\)"):
            read()
