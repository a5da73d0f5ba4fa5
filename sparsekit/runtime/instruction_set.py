"""The instruction set in use, its kernels, and the build of the extension."""

from __future__ import annotations

from sparsekit import _C

KernelUnavailableError = _C.KernelUnavailableError


def build() -> str:
    """How the native extension was built."""
    return f"{_C.build_type}, compiler {_C.compiler}"


def version() -> str:
    """Library version that the native extension was built from."""
    return _C.version


def kernels() -> list[tuple[str, int, int]]:
    """Kernels of the instruction set in use: name, tokens per tile, number of tokens from which it is preferred."""
    return _C.kernels()


def run_peak(rounds: int) -> int:
    """Run FMAs on registers only, on the calling thread; returns the number of floating-point operations.

    Time it to measure this machine's peak FLOP/s.
    """
    return _C.run_peak(rounds)


def available_isas() -> list[str]:
    """Instruction sets that this machine supports, slowest first."""
    return _C.available_isas()


def current_isa() -> str:
    """Instruction set in use: the best of this machine, or `SPARSEKIT_ISA`.

    Raises:
        KernelUnavailableError: `SPARSEKIT_ISA` is unknown or not supported by this machine.
    """
    return _C.current_isa()


def packing_targets() -> list[str]:
    """Targets for packing: "native" for the instruction set in use, "avx2", "avx512" or "neon".

    They only differ in the choice of layouts; every instruction set supports all layouts.
    """
    return _C.packing_targets()


def use_isa(name: str) -> None:
    """Use this instruction set from now on, in every thread.

    Raises:
        KernelUnavailableError: it is unknown or not supported by this machine.
    """
    _C.use_isa(name)
