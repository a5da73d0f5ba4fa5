"""Sections on the environment and on how to reproduce the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsekit.report.page import Section, Table


def _processor(environment: Mapping[str, Any]) -> str:
    """Name the processor by lscpu's model name, family and model."""
    numbers = {"family": environment.get("cpu_family"), "model": environment.get("cpu_model")}
    return ", ".join([environment["cpu"], *(f"{name} {found}" for name, found in numbers.items() if found is not None)])


def environment_section(environment: Mapping[str, Any]) -> Section:
    """Table of processor, system and versions."""
    facts = {
        "processor": _processor(environment),
        "logical processors": environment.get("processors"),
        "instruction set": environment.get("isa"),
        "system": environment.get("system"),
        "Python": environment.get("python"),
        "sparsekit": environment.get("sparsekit"),
        "build": environment.get("build"),
        **environment.get("packages", {}),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    return Section("Environment", tables=[Table(("", ""), rows, words=(0, 1))])


def commands_section(commands: Sequence[str]) -> Section:
    """Commands that reproduce the page."""
    return Section("Reproduce", commands=commands)
