"""What model folders cost: bytes on disk, time and memory to load them, dense and sparse, each in a process of its own.

.venv/bin/python benchmarks/folders.py benchmarks/results/folders.json [FOLDER]

FOLDER is a transformers encoder, all-MiniLM-L6-v2 of the demo if left out. Nine tenths of its linear weights are pruned
by magnitude: sizes and times are those of a pruned model, what it computes is not. Needs Linux.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import transformers

from sparsekit import convert, finalize, prune, save
from sparsekit.checkpoint.folder_conversion import open_folder
from sparsekit.demo.model import minilm_folder
from sparsekit.environment import environment
from sparsekit.files import write_json

SPARSITY = 0.9
REPEATS = 9
#: Ways to load: how, and the folders that it can load.
WAYS = {
    "dense, from_pretrained": ("from_pretrained", "dense"),
    "float32, sparsekit.load": ("load", "float32"),
    "float32, from_pretrained": ("from_pretrained", "float32"),
    "int8, sparsekit.load": ("load", "int8"),
    "int8, from_pretrained": ("from_pretrained", "int8"),
}

#: Loads a folder and runs the model once; prints seconds, and bytes of memory above what the libraries took: at the
#: peak of loading, after it, and after the first call, when all that was mapped has been read.
LOAD = """
import gc, json, pathlib, sys, time
import torch, transformers, sparsekit, sparsekit.checkpoint.quantizer
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
def status(name):
    line = next(x for x in pathlib.Path("/proc/self/status").read_text().splitlines() if x.startswith(name + ":"))
    return 1024 * int(line.split()[1])
how, warm, folder = sys.argv[1:]
def call(model):
    ids = torch.arange(16)[None] % model.config.vocab_size
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
load = sparsekit.load if how == "load" else transformers.AutoModel.from_pretrained
call(load(warm))  # imports the model's code, and has torch set up what it needs
gc.collect()
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
begin = time.perf_counter()
model = load(folder)
seconds = time.perf_counter() - begin
peak = status("VmHWM") - before
loaded = status("VmRSS") - before
call(model)
called = status("VmRSS") - before
print(json.dumps({"seconds": seconds, "peak": peak, "loaded": loaded, "called": called}))
"""


def _disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("model*.safetensors"))


def write_folders(source: Path, out: Path) -> dict[str, int]:
    """The pruned model dense, and converted with float32 and with int8 values. Returns bytes of their weight files."""
    for name in ("dense", "float32", "int8"):
        model, _ = open_encoder(source)
        prune(model, SPARSITY)
        finalize(model)
        if name == "dense":
            model.save_pretrained(out / name)
        else:
            convert(model, min_sparsity=0.5, values=name)
            save(model, out / name)
    return {name: _disk(out / name) for name in ("dense", "float32", "int8")}


def open_encoder(source: Path) -> tuple[Any, Any]:
    """The transformers model in a folder, also of a sentence-transformers one, and its tokenizer."""
    model, tokenizer = open_folder(source)
    return (model, tokenizer) if tokenizer is not None or hasattr(model, "config") else (model[0].auto_model, None)


def write_warm_up(out: Path) -> None:
    """A tiny model, dense and sparse, by which processes import what loading needs before they are measured."""
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    model = transformers.BertModel(config)
    model.save_pretrained(out / "warm-dense")
    prune(model, SPARSITY)
    convert(model, min_sparsity=0.0)
    save(model, out / "warm-sparse")


def load_once(way: str, folders: Path) -> dict[str, float]:
    """One row of numbers of one process."""
    how, name = WAYS[way]
    warm = folders / ("warm-dense" if name == "dense" else "warm-sparse")
    arguments = [sys.executable, "-c", LOAD, how, str(warm), str(folders / name)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(rows: list[dict[str, float]], disk: int) -> dict[str, Any]:
    """Medians of one way, and the range of its times; memory is in bytes."""
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    times = [row["seconds"] for row in rows]
    return {
        "disk_bytes": disk,
        "seconds": middle["seconds"],
        "seconds_range": [min(times), max(times)],
        "loaded_bytes": middle["loaded"],
        "called_bytes": middle["called"],
        "peak_bytes": middle["peak"],
        "peak_over_called": statistics.median(row["peak"] / row["called"] for row in rows),
    }


def measure(source: Path, repeats: int = REPEATS) -> dict[str, Any]:
    """All ways to load, interleaved; the first round, which reads the files from disk, does not count."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        disk = write_folders(source, out)
        write_warm_up(out)
        rounds = [{way: load_once(way, out) for way in WAYS} for _ in range(repeats + 1)][1:]
    return {way: summary([found[way] for found in rounds], disk[name]) for way, (_, name) in WAYS.items()}


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    source = Path(arguments[1]) if len(arguments) == 2 else minilm_folder()
    result = {
        "environment": environment(),
        "model": "all-MiniLM-L6-v2" if len(arguments) == 1 else source.name,
        "sparsity": SPARSITY,
        "repeats": REPEATS,
        "ways": measure(source),
    }
    write_json(Path(arguments[0]), result)
    for way, found in result["ways"].items():
        megabytes = {key: found[f"{key}_bytes"] / 1e6 for key in ("disk", "called", "peak")}
        print(f"{way:26} {1e3 * found['seconds']:7.1f} ms", {key: round(value, 1) for key, value in megabytes.items()})
    print(f"wrote {arguments[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
