"""Freed memory that the process keeps, and resident memory."""

import mmap
import platform
import subprocess
import sys

import pytest

from sparsekit import keep_freed_memory
from sparsekit.runtime import memory, resident_bytes

FAULTS = """
import ctypes, resource, sys
from sparsekit import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
size = 30 << 20
def work():
    blocks = [ctypes.c_void_p(c.malloc(size)) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        c.free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    work()
before = faults()
for _ in range(10):
    work()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_no_new_pages_are_taken_again_and_again():
    def found(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True)
        return int(run.stdout)

    assert found("keep") < 50 < found("leave")


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="limit must not be negative, got -1"):
        keep_freed_memory(-1)


@pytest.mark.skipif(platform.system() != "Linux", reason="reads Linux's own files")
def test_resident_memory_grows_with_what_is_written():
    with mmap.mmap(-1, 32 << 20) as pages:  # new ones, not what the heap has kept
        written = b"1" * len(pages)
        before = resident_bytes()
        pages.write(written)
        grown = resident_bytes() - before
        assert len(pages) * 0.9 <= grown <= len(pages) * 1.5


def test_resident_memory_is_unknown_without_linux(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_SIZES", tmp_path / "statm")
    assert resident_bytes() is None
