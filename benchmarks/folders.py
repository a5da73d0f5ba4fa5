"""What model folders cost: bytes on disk, time and memory to load them, dense and sparse, each in a process of its own.

.venv/bin/python benchmarks/folders.py benchmarks/results/folders.json [FOLDER]

FOLDER is a transformers encoder, all-MiniLM-L6-v2 of the demo if left out. Its linear layers are pruned by magnitude:
sizes and times are those of a pruned model, what it computes is not. Needs Linux.

The process that is started imports what loading needs; every measurement is made in a process that is forked from it
and has loaded a tiny model before, so that only the model counts.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import sparsekit
from sparsekit import SparseLinear, convert, finalize, prune, save
from sparsekit.bench.minilm import minilm_folder
from sparsekit.checkpoint.transformers.foreign import from_folder
from sparsekit.checkpoint.transformers.opening import open_folder
from sparsekit.io.atomic_file import write_json
from sparsekit.runtime.environment import environment

REPEATS = 5
#: Folder -> sparsity and type of weights; of the dense model, whether transformers or sparsekit saves it.
FOLDERS: dict[str, tuple[float, str] | str] = {
    "dense": "transformers",
    "dense, with checksums": "sparsekit",
    "80% float32": (0.8, "float32"),
    "90% float32": (0.9, "float32"),
    "80% int8": (0.8, "int8"),
    "90% int8": (0.9, "int8"),
}
#: What is measured: a folder, and what loads it.
WAYS = [("dense", "from_pretrained"), ("dense, with checksums", "load")]
WAYS += [(name, how) for name in FOLDERS if "%" in name for how in ("load", "from_pretrained")]
FORK = multiprocessing.get_context("fork")


def in_child(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function returns that runs in a forked process."""
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: sender.send(function(*arguments)))
    child.start()
    sender.close()
    found = receiver.recv()  # EOFError if the child failed
    child.join()
    return found


def step(text: str) -> None:
    print(f"{time.process_time():6.1f} s  {text}", file=sys.stderr, flush=True)


def encoder(source: Path) -> Any:
    """The transformers model in a folder, also of a sentence-transformers one."""
    model, _ = open_folder(source)
    return model if hasattr(model, "config") else model[0].auto_model


def write_folder(source: Path, name: str, out: Path) -> dict[str, int]:
    """Write one of the folders. Returns the bytes of its weight files, and of the model's tensors by kind."""
    model, kind = encoder(source), FOLDERS[name]
    if kind == "transformers":
        model.save_pretrained(out / name)
    elif kind == "sparsekit":
        save(model, out / name)
    else:
        prune(model, kind[0])
        finalize(model)
        convert(model, min_sparsity=0.0, dtype=kind[1])
        save(model, out / name)
    disk = sum(path.stat().st_size for path in (out / name).glob("model*.safetensors"))
    return {"disk_bytes": disk, **tensor_bytes(model)}


def tensor_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of the weights of linear layers, and of all other tensors."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear | SparseLinear)]
    weights = [module.packed if isinstance(module, SparseLinear) else module.weight for module in linear]
    every = [*model.parameters(), *model.buffers()]
    in_linear = sum(tensor.nbytes for tensor in weights)
    return {"linear_bytes": in_linear, "other_bytes": sum(tensor.nbytes for tensor in every) - in_linear}


def write_warm_up(out: Path) -> None:
    """A tiny model, dense and sparse."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=50, **sizes))
    model.save_pretrained(out / "warm-dense")
    prune(model, 0.9)
    convert(model, min_sparsity=0.0)
    save(model, out / "warm-sparse")


def load(how: str, folder: Path) -> Any:
    return sparsekit.load(folder) if how == "load" else from_folder(transformers.AutoModel.from_pretrained, folder)


def status(name: str) -> int:
    """Bytes that /proc/self/status gives."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def read_all(model: nn.Module) -> None:
    """Read from every page of every tensor, so that what is mapped from files is in memory."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().flatten().view(torch.uint8)[:: mmap.PAGESIZE].sum()


def give_back() -> None:
    """Have the system take back memory that is free, which would be counted, or be used again without being counted."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def load_once(how: str, folder: Path, warm: Path) -> dict[str, float]:
    """Seconds to load, and until every weight was read; bytes above what the process had: most while loading, and then.

    transformers maps the files of a dense model, so that its weights are read when they are first used.
    """
    read_all(load(how, warm))
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, begin = status("VmRSS"), time.perf_counter()
    model = load(how, folder)
    loaded_after = time.perf_counter() - begin
    peak = status("VmHWM") - before
    begin = time.perf_counter()
    read_all(model)
    read_after = loaded_after + time.perf_counter() - begin
    give_back()
    return {"seconds": loaded_after, "seconds_read": read_after, "peak": peak, "loaded": status("VmRSS") - before}


def summary(rows: list[dict[str, float]], sizes: dict[str, int]) -> dict[str, Any]:
    """Medians of one way to load, and the range of its times."""
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    times = [row["seconds"] for row in rows]
    return {
        **sizes,
        "seconds": middle["seconds"],
        "seconds_range": [min(times), max(times)],
        "seconds_read": middle["seconds_read"],
        "loaded_bytes": middle["loaded"],
        "loaded_linear_bytes": middle["loaded"] - sizes["other_bytes"],
        "peak_bytes": middle["peak"],
        "peak_over_loaded": statistics.median(row["peak"] / row["loaded"] for row in rows),
    }


def measure(source: Path) -> list[dict[str, Any]]:
    """All ways to load, interleaved; the first round, which reads the files from disk, does not count."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        sizes = {}
        for name in FOLDERS:
            sizes[name] = in_child(write_folder, source, name, out)
            step(f"wrote {name}")
        in_child(write_warm_up, out)
        warm = {name: out / ("warm-dense" if name == "dense" else "warm-sparse") for name in FOLDERS}
        for name, how in WAYS[:3]:
            load(how, warm[name])  # imports the code of the model
        rounds = []
        for number in range(REPEATS + 1):
            rounds.append([in_child(load_once, how, out / name, warm[name]) for name, how in WAYS])
            step(f"round {number} of {REPEATS}")
    rows = zip(WAYS, zip(*rounds[1:], strict=True), strict=True)
    return [{"folder": name, "by": how, **summary(list(found), sizes[name])} for (name, how), found in rows]


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = Path(arguments[1]) if len(arguments) == 2 else minilm_folder()
    result = {
        "environment": environment(),
        "model": "all-MiniLM-L6-v2" if len(arguments) == 1 else source.name,
        "repeats": REPEATS,
        "rows": measure(source),
    }
    write_json(Path(arguments[0]), result)
    print(f"wrote {arguments[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
