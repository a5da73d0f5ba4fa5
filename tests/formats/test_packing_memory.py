"""The memory limit of model folders covers what packing allocates."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparsekit.folder.manifest import LayerEntry
from sparsekit.folder.model_folder import memory_of

#: Packs a weight without nonzeros in a process of its own; prints the peak of its memory above what was there before.
PEAK = """
import pathlib, sys, numpy as np
from sparsekit import CSR
def status(name):
    line = next(x for x in pathlib.Path("/proc/self/status").read_text().splitlines() if x.startswith(name + ":"))
    return 1024 * int(line.split()[1])
out_features, in_features = int(sys.argv[1]), int(sys.argv[2])
empty = np.zeros(0, np.int32), np.zeros(0, np.float32)
weight = CSR(np.zeros(out_features + 1, np.int64), *empty, shape=(out_features, in_features))
scales = np.ones(out_features, np.float32)
CSR.from_dense(np.eye(8, dtype=np.float32)).pack()
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
packed = weight.pack(sys.argv[3], scales=scales, block=sys.argv[4])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("block", ["1x1", "4x1"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("shape", [(4000, 200_000), (10, 10_000_000), (500_000, 10)])
def test_the_limit_counts_what_packing_takes(shape, dtype, block):
    command = [sys.executable, "-c", PEAK, *map(str, shape), dtype, block]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    counted = memory_of(LayerEntry(shape, dtype, 0, block=block))
    room = 2**21  # pages that the interpreter takes meanwhile
    assert peak <= counted + room
    if (dtype, block) == ("float32", "1x1") and shape[1] > shape[0] > 16:
        assert counted <= 1.2 * peak
