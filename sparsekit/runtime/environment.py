"""The environment of a measurement: processor, instruction set, threads, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sparsekit
from sparsekit import runtime

_PACKAGES = (
    "torch",
    "numpy",
    "onnxruntime",
    "openvino",
    "nncf",
    "ctranslate2",
    "scipy",
    "sparse_dot_mkl",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "xllamacpp",
)


def _cpu_facts() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo."""
    cpuinfo = Path("/proc/cpuinfo")
    first = cpuinfo.read_text().partition("\n\n")[0] if cpuinfo.exists() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpu() -> dict[str, str | int]:
    """Model name, family and model of the processor, as in lscpu; virtual machines hide part of the name."""
    facts = _cpu_facts()
    found: dict[str, str | int] = {"cpu": facts.get("model name") or platform.processor() or platform.machine()}
    numbers = {"cpu_family": facts.get("cpu family", ""), "cpu_model": facts.get("model", "")}
    return found | {name: int(value) for name, value in numbers.items() if value.isdigit()}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Environment to store with every measurement, as JSON types."""
    return {
        "sparsekit": sparsekit.__version__,
        "build": runtime.build(),
        "isa": runtime.current_isa(),
        "available_isas": runtime.available_isas(),
        "threads": runtime.num_threads(),
        **_cpu(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
    }
