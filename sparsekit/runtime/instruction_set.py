"""The instruction set in use, its kernels, and the build of the extension."""

from __future__ import annotations

from sparsekit import _C

KernelUnavailableError = _C.KernelUnavailableError


def build() -> str:
    """How the native extension was built."""
    return f"{_C.build_type}, compiler {_C.compiler}"


def version() -> str:
    """Version of the library that the native extension was built from."""
    return _C.version


def kernels() -> list[tuple[str, int, int]]:
    """The kernels of the instruction set in use: name, tokens a tile, tokens from which it is preferred."""
    return _C.kernels()


def run_peak(rounds: int) -> int:
    """Run multiply-adds from registers only, on the calling thread; returns the floating-point operations done.

    Time it to know what the arithmetic units of this machine could do at most.
    """
    return _C.run_peak(rounds)


def available_isas() -> list[str]:
    """Instruction sets that this machine can run, slowest first."""
    return _C.available_isas()


def current_isa() -> str:
    """Instruction set in use: the best of this machine, or the one that `SPARSEKIT_ISA` names.

    Raises:
        KernelUnavailableError: `SPARSEKIT_ISA` names one that is unknown or cannot run here.
    """
    return _C.current_isa()


def packing_targets() -> list[str]:
    """What weights can be packed for: "native", the instruction set in use, "avx2", "avx512" or "neon".

    Only the choice of layouts differs; every instruction set runs them all.
    """
    return _C.packing_targets()


def use_isa(name: str) -> None:
    """Use this instruction set from now on, in every thread.

    Raises:
        KernelUnavailableError: it is unknown or cannot run here.
    """
    _C.use_isa(name)
