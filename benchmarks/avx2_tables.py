"""Tables of linear layers on a processor with AVX2 and no AVX-512."""

from __future__ import annotations

from typing import Any

from dtypes_tables import compared
from layers_tables import FEW, median_table, noise, short_table
from results_tables import load, machine, source

from sparsekit.bench.summary import speedups

_RESULT = "layers-avx2.json"
_ENGINES = ("sparsekit", "sparsekit-int8", "sparsekit-4x1", "sparsekit-int8-4x1")


def _origin(stored: dict[str, Any]) -> str:
    return f"{machine(stored['environment'])} {source(_RESULT)}"


def avx2_block() -> str:
    """Speed-up over the best dense engine in float32: float32 with its range, and every type and block."""
    stored = load(_RESULT)
    rows, packages = stored["rows"], stored["environment"]["packages"]
    return (
        f"{median_table(speedups(rows))}\n\nOther data types and 4x1 blocks:\n\n"
        f"{compared(rows, _ENGINES, 1, over_int8=False)}\n\nSpeed-up over the fastest of torch, ONNX Runtime "
        f"{packages['onnxruntime']} and OpenVINO {packages['openvino']} in float32, one thread: median over the eight "
        f"shapes, and the range. {noise(rows)} {_origin(stored)}"
    )


def avx2_headline_block() -> str:
    """Float32 in short."""
    stored = load(_RESULT)
    return f"{short_table(speedups(stored['rows']), FEW)}\n\n{_origin(stored)}"
