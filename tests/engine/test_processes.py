"""Encoders after `fork` and on Ctrl-C."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_encoders import assert_close, bert_with_tokenizer

from sparsekit.engine import Encoder, compile_model

TEXTS = ["a film", "the story of an actor " * 4, "good"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The arguments of the processes here: a compiled file and its tokenizer."""
    folder = bert_with_tokenizer(tmp_path_factory.mktemp("processes") / "model")
    compile_model(folder, folder.parent / "model.bin", pooling="mean")
    return str(folder.parent / "model.bin"), str(folder / "tokenizer.json")


FORK = """
import os, sys
import numpy as np
from sparsekit.engine import Encoder
found = Encoder(sys.argv[1], tokenizer=sys.argv[2], threads=4)
texts = sys.argv[4:]
before = found.encode(texts)
child = os.fork()
np.save(f"{sys.argv[3]}/{'child' if child == 0 else 'parent'}.npy", found.encode(texts))
if child != 0:
    assert np.array_equal(before, found.encode(texts))
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_computes_what_its_parent_does(model, tmp_path):
    subprocess.run([sys.executable, "-c", FORK, *model, str(tmp_path), *TEXTS], check=True, timeout=120)
    path, tokenizer = model
    expected = Encoder(path, tokenizer=tokenizer).encode(TEXTS)
    for process in ("parent", "child"):
        assert_close(np.load(tmp_path / f"{process}.npy"), expected)


#: Where the tests run in the background of a shell, Ctrl-C is ignored and would be by their children.
LONG = """
import signal, sys
from sparsekit.engine import Encoder
signal.signal(signal.SIGINT, signal.default_int_handler)
found = Encoder(sys.argv[1], tokenizer=sys.argv[2], threads=1)
encode, calls = found._core.encode, []
def counted(ids, *others):
    assert ids.size <= 256
    calls.append(1)
    if len(calls) == 5:
        print("computing", flush=True)
    return encode(ids, *others)
found._core.encode = counted
try:
    found.encode(["a film " * 15] * 20_000)
except KeyboardInterrupt:
    print("interrupted", len(calls), flush=True)
"""


def test_ctrl_c_ends_a_long_call_between_batches(model):
    with subprocess.Popen([sys.executable, "-c", LONG, *model], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        word, calls = process.stdout.readline().split()
        print(f"{time.monotonic() - start:.3f} s")  # of interest where it fails; tests time nothing
        assert word == "interrupted"
        assert int(calls) < 20_000 // (256 // 32)
        assert process.wait(60) == 0


#: The signal comes when a twentieth of the call may be done; most of what is left of it then is not computed.
ONE_CALL = """
import os, pathlib, signal, sys, threading, time
import numpy as np
from sparsekit import runtime
from sparsekit.engine.compiled_file import read_compiled
signal.signal(signal.SIGINT, signal.default_int_handler)
runtime.set_num_threads(1)
core = runtime.CompiledEncoder(read_compiled(pathlib.Path(sys.argv[1]), True))
def seconds(sequences):
    ids, offsets = np.full(sequences * 30, 3, np.int32), np.arange(0, sequences * 30 + 1, 30)
    start = time.monotonic()
    try:
        core.run(ids, offsets, None)
    except KeyboardInterrupt:
        print("interrupted")
    return time.monotonic() - start
part = seconds(1_000)
threading.Timer(5 * part, os.kill, (os.getpid(), signal.SIGINT)).start()
parts = seconds(100_000) / part
assert parts < 50, f"stopped after the time of {parts:.0f} parts of 100"
seconds(1)
"""


def test_ctrl_c_ends_one_call_between_layers(model):
    found = subprocess.run([sys.executable, "-c", ONE_CALL, model[0]], stdout=subprocess.PIPE, text=True, timeout=120)
    assert (found.stdout, found.returncode) == ("interrupted\n", 0)
