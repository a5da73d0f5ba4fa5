"""Names of processors in tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Instruction sets with AVX-512 VBMI, by all names in stored results.
_VBMI = {"avx512vbmi", "zen4", "icelake"}


def _microarchitecture(environment: Mapping[str, Any]) -> str:
    """Microarchitecture, inferred from instruction sets where a virtual machine hides the model name.

    Among processors with AVX-512, AVX-VNNI came with AMD's family 26 and with Intel's Sapphire Rapids.
    """
    found = set(environment["available_isas"])
    if not found & _VBMI:
        return ""
    if environment["cpu"].startswith("AMD"):
        return "Zen 5, family 26" if "avxvnni" in found else "Zen 4, family 25"
    return "Sapphire Rapids or later, family 6" if "avxvnni" in found else "family 6"


def _amd_core(family: int, model: int) -> str:
    """Zen generation by family and model: in family 25, models 16 to 31 and 96 upward are Zen 4."""
    newer = 16 <= model < 32 or model >= 96
    return {25: "Zen 4, " if newer else "Zen 3, ", 26: "Zen 5, "}.get(family, "")


def processor(environment: Mapping[str, Any]) -> str:
    """Name a processor by lscpu's model name and family, from a stored environment.

    >>> processor({"cpu": "AMD EPYC", "available_isas": ["avx2", "avxvnni", "avx512vbmi"]})
    'AMD EPYC (Zen 5, family 26)'
    >>> processor({"cpu": "AMD EPYC", "cpu_family": 25, "cpu_model": 17, "available_isas": ["avx2"]})
    'AMD EPYC (Zen 4, family 25, model 17)'
    """
    name: str = environment["cpu"].replace("(R)", "")
    if environment.get("cpu_family"):
        family, model = environment["cpu_family"], environment["cpu_model"]
        core = _amd_core(family, model) if name.startswith("AMD") else ""
        return f"{name} ({core}family {family}, model {model})"
    core = _microarchitecture(environment)
    return f"{name} ({core})" if core else name
