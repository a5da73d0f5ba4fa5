"""Run a pruned MiniLM by examples/c for Arm, and compare its vectors with those of the same program here.

python tests/native/minilm_on_arm.py build/example/release/embed qemu-aarch64 ... build/example/neon/embed
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

from sparsekit import finalize, prune
from sparsekit.bench.minilm import load_minilm, minilm_folder
from sparsekit.engine import compile_model

COMPARE = Path(__file__).parents[2] / "examples" / "c" / "compare.py"
SPARSITY = 0.9
TEXTS = (
    "film",
    "A slow start, and then one of the best endings in years.",
    "Sparse matrices hold few nonzeros. " * 8,
)
#: Type of linear layers -> arguments of compare.py. In int8 an input that is rounded the other way moves by a whole
#: step: numbers were up to 9.7e-4 apart.
TOLERANCES: dict[str, list[str]] = {"float32": [], "int8": ["5e-3"]}


def write_pruned(folder: Path) -> None:
    """MiniLM with zeros in its dense weights, without its tokenizer."""
    model = load_minilm()
    prune(model, SPARSITY)
    finalize(model)
    model.save_pretrained(folder)


def compare(here: list[str], there: list[str], arguments: list[str], tolerance: list[str], expected: Path) -> None:
    """Exit where a program fails, or where the vectors are apart."""
    expected.write_bytes(subprocess.run([*here, *arguments], check=True, stdout=subprocess.PIPE).stdout)
    found = subprocess.run([*there, *arguments], check=True, stdout=subprocess.PIPE).stdout
    if subprocess.run([sys.executable, COMPARE, expected, *tolerance], input=found).returncode != 0:
        sys.exit(f"{arguments[0]}: {len(arguments) - 1} tokens differ on Arm")


def main(here: list[str], there: list[str]) -> None:
    try:
        source = minilm_folder()
    except FileNotFoundError as error:
        print(f"not run: MiniLM on Arm; {error}")
        return
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pruned(folder / "model")
        for dtype, tolerance in TOLERANCES.items():
            path = folder / f"{dtype}.sparsekit"
            compile_model(folder / "model", path, dtype=dtype, pooling="mean", target="neon")
            for text in TEXTS:
                ids = map(str, tokenizer(text)["input_ids"])
                compare(here, there, [str(path), *ids], tolerance, folder / "expected")


if __name__ == "__main__":
    main(sys.argv[1:2], sys.argv[2:])
