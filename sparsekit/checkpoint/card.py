"""The model card of a folder: what it is, how sparse and how large, and the line that loads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sparsekit.extras import how_to_install
from sparsekit.folder.manifest import Manifest
from sparsekit.io.atomic_file import write_atomically
from sparsekit.io.file_names import CARD

_CARD = """\
---
library_name: sparsekit
---

# {title}

{sparsity}
The weight files have {stored:,} bytes; with every weight dense they would have {dense:,}
({times:.1f} times as many).

```python
import sparsekit

model = sparsekit.load("path/to/this/folder"{argument})
```
{transformers}
Sparse weights are stored as `values`, with the places of those that are not in a dense array; other libraries find no
`weight` there.
"""

_MEASURED = "## Dense beside compressed"

_TRANSFORMERS = """
`import sparsekit` ({install}) is also all that transformers and sentence-transformers need:

```python
import sparsekit
from transformers import {title}

model = {title}.from_pretrained("path/to/this/folder")
```

Without it they refuse the folder: their own code reads no sparse weights.
"""


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table from cells, column names first."""
    header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write_section(folder: Path, title: str, table: Sequence[Sequence[str]], notes: str) -> None:
    """Append a table of measurements to a folder's card, or replace the existing one.

    Args:
        folder: the folder; if it has no card, one with only the table is created.
        title: what the model is.
        table: cells, column names first.
        notes: how they were measured.
    """
    path = folder / CARD
    text = path.read_text() if path.exists() else f"---\nlibrary_name: transformers\n---\n\n# {title}\n"
    text = text.partition(_MEASURED)[0].rstrip("\n")
    section = f"{text}\n\n{_MEASURED}\n\n{markdown_table(table)}\n{notes}\n"
    write_atomically(path, lambda temporary: temporary.write_text(section))


def _about_embeddings(manifest: Manifest) -> Iterator[str]:
    for name in manifest.embeddings:
        rows, features = manifest.arrays[f"{name}.codes"].shape
        yield f"The {rows:,} embeddings of {features} features in `{name}` are in int8, with a scale for each."


def card(title: str, manifest: Manifest, stored_bytes: int, dense_bytes: int, *, needs_model: bool) -> str:
    """Text of the card.

    Args:
        title: what the model is, such as the name of its class.
        manifest: manifest of the folder.
        stored_bytes: size of all arrays.
        dense_bytes: their size if every weight were dense.
        needs_model: whether `load` needs a `model`, because no `config.json` describes it.
    """
    sizes = [layer.shape[0] * layer.shape[1] for layer in manifest.layers.values()]
    nnz = sum(layer.nnz for layer in manifest.layers.values())
    sparsity = "No layer is stored sparse."
    if sum(sizes):
        share = 1.0 - nnz / sum(sizes)
        sparsity = f"{share:.1%} of the {sum(sizes):,} weights of {len(sizes)} linear layers are left out as zeros."
    return _CARD.format(
        title=title,
        sparsity="\n".join([sparsity, *_about_embeddings(manifest)]),
        stored=stored_bytes,
        dense=dense_bytes,
        times=dense_bytes / max(stored_bytes, 1),
        argument=f", model={title}(...)" if needs_model else "",
        transformers="" if needs_model else _TRANSFORMERS.format(title=title, install=how_to_install("train")),
    )
