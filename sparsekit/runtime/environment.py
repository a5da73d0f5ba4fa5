"""What a figure depends on: processor, instruction set, threads, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sparsekit
from sparsekit import runtime

_PACKAGES = ("torch", "numpy", "onnxruntime", "openvino", "scipy", "sparse_dot_mkl", "transformers")


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Facts to store beside every measurement, as plain values."""
    return {
        "sparsekit": sparsekit.__version__,
        "build": runtime.build(),
        "isa": runtime.current_isa(),
        "available_isas": runtime.available_isas(),
        "threads": runtime.num_threads(),
        "cpu": _cpu_model(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
    }
