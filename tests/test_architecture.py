"""The layers hold: who imports whom, what kernels may include, what their objects export."""

import ast
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sparsekit"
CSRC = ROOT / "csrc"

#: Lower layers first; a module imports only from its own layer and those before it.
LAYERS = [
    [
        "sparsekit._C",
        "sparsekit.extras",
        "sparsekit.files",
        "sparsekit.memory",
        "sparsekit.progress",
        "sparsekit.checked_weights",
        "sparsekit.timing",
    ],
    ["sparsekit.runtime", "sparsekit.formats", "sparsekit.environment"],
    ["sparsekit.addresses"],
    [
        "sparsekit.absent_weight",
        "sparsekit.ops",
        "sparsekit.nn",
        "sparsekit.joined",
        "sparsekit.attention",
        "sparsekit.chunking",
        "sparsekit.fidelity",
        "sparsekit.joining",
        "sparsekit.norms",
        "sparsekit.rewriting",
        "sparsekit.selection",
        "sparsekit.surgery",
        "sparsekit.dense_classes",
        "sparsekit.splitting",
        "sparsekit.fused_linear",
        "sparsekit.call_parts",
        "sparsekit.function_source",
        "sparsekit.hooks",
        "sparsekit.model_code",
        "sparsekit.settings_of",
        "sparsekit.shared_inputs",
        "sparsekit.weight_reads",
        "sparsekit.weight_users",
    ],
    ["sparsekit.pruning", "sparsekit.distill"],
    ["sparsekit.training"],
    ["sparsekit.gain", "sparsekit.one_thread", "sparsekit.plausibility", "sparsekit.fusion", "sparsekit.sensitivity"],
    [
        "sparsekit.unreached",
        "sparsekit.conversion_report",
        "sparsekit.zeros",
        "sparsekit.whole_model",
        "sparsekit.conversion",
    ],
    ["sparsekit.checkpoint"],
    ["sparsekit.importers", "sparsekit.exporters"],
    ["sparsekit.compress"],
    ["sparsekit.bench"],
    ["sparsekit.demo"],
    ["sparsekit.stopping", "sparsekit.cli", "sparsekit.__main__"],
]
#: Pure PyTorch: usable where no compiler is.
NO_NATIVE = [
    "sparsekit.pruning",
    "sparsekit.distill",
    "sparsekit.training",
    "sparsekit.selection",
    "sparsekit.surgery",
    "sparsekit.fidelity",
    "sparsekit.splitting",
    "sparsekit.files",
    "sparsekit.progress",
    "sparsekit.timing",
]
NO_TORCH = [
    "sparsekit.extras",
    "sparsekit.runtime",
    "sparsekit.formats",
    "sparsekit.files",
    "sparsekit.memory",
    "sparsekit.progress",
    "sparsekit.checked_weights",
    "sparsekit.timing",
]


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Absolute names of everything a module imports outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def layer_of(name: str) -> int | None:
    for number, modules in enumerate(LAYERS):
        if any(name == module or name.startswith(module + ".") for module in modules):
            return number
    return None


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def test_every_module_has_a_layer():
    assert [name for name in MODULES if name != "sparsekit" and layer_of(name) is None] == []


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"sparsekit"}))
def test_imports_go_only_downwards(name):
    above = [other for other in imports(MODULES[name]) if (layer_of(other) or 0) > layer_of(name)]
    assert above == []


def test_the_extension_is_imported_in_exactly_two_modules():
    users = {name for name, path in MODULES.items() if "sparsekit._C" in imports(path)}
    assert users == {"sparsekit.runtime", "sparsekit.formats.csr"}


@pytest.mark.parametrize("part", NO_NATIVE)
def test_the_training_side_needs_no_native_code(part):
    native = ("sparsekit._C", "sparsekit.runtime", "sparsekit.formats", "sparsekit.ops", "sparsekit.nn")
    for name, path in MODULES.items():
        if name == part or name.startswith(part + "."):
            assert not [other for other in imports(path) if other.startswith(native)], name


@pytest.mark.parametrize("part", NO_TORCH)
def test_the_runtime_loads_no_torch(part):
    for name, path in MODULES.items():
        if name == part or name.startswith(part + "."):
            assert not [other for other in imports(path, top_level_only=True) if other.startswith("torch")], name


def test_pruning_and_distillation_do_not_know_each_other():
    for name, path in MODULES.items():
        if name.startswith("sparsekit.pruning"):
            assert not [other for other in imports(path) if other.startswith("sparsekit.distill")]
        if name.startswith("sparsekit.distill"):
            assert not [other for other in imports(path) if other.startswith("sparsekit.pruning")]


def includes(path: Path) -> list[str]:
    return re.findall(r'#include\s+[<"]([^>"]+)[>"]', path.read_text())


SOURCES = [path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp")]


def test_native_code_knows_no_torch_and_only_bindings_know_pybind11():
    for path in SOURCES:
        for header in includes(path):
            assert not header.startswith(("torch", "ATen", "c10", "omp")), path
            if header.startswith(("pybind11", "Python")):
                assert path.parent.name == "bindings", path


def test_kernels_include_only_themselves_and_intrinsics():
    allowed = {"cstdint", "cstddef", "immintrin.h", "arm_neon.h"}
    for path in (CSRC / "kernels").rglob("*"):
        if path.is_file():
            own = {header for header in includes(path) if (path.parent / header).is_file()}
            assert set(includes(path)) <= allowed | own, path
            assert "std::" not in re.sub(r"std::(u?int\d+_t|size_t|ptrdiff_t)", "", path.read_text()), path


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [("kernels", ()), ("formats", ("kernels", "formats")), ("dispatch", ("base", "kernels", "formats", "dispatch"))],
)
def test_native_layers_include_only_downwards(folder, allowed):
    for path in (CSRC / folder).rglob("*"):
        for header in includes(path) if path.is_file() else []:
            if header.startswith("../"):
                assert header.split("/")[1] in allowed, (path, header)


def build_table() -> dict[str, str]:
    """Instruction sets of the build's table with their flags, as the CMake file writes them."""
    text = (ROOT / "cmake" / "InstructionSets.cmake").read_text()
    return dict(re.findall(r"set\(SPARSEKIT_ISA_FLAGS_(\w+) ([^)]*)\)", text))


def test_the_two_lists_of_instruction_sets_agree():
    runtime_list = re.findall(r"X\((\w+),", (CSRC / "base" / "cpu.h").read_text())
    headers = {path.stem for path in (CSRC / "kernels" / "isa").glob("*.h")}
    assert set(runtime_list) == set(build_table()) == headers


@pytest.mark.slow
@pytest.mark.parametrize("isa", sorted(build_table()))
def test_each_instruction_set_exports_one_symbol(isa, tmp_path):
    """Code compiled for a newer machine must not be linked into generic objects."""
    prefix = "aarch64-linux-gnu-" if isa.startswith("neon") and platform.machine() != "aarch64" else ""
    if shutil.which(prefix + "g++") is None or shutil.which(prefix + "nm") is None:
        pytest.skip(f"needs {prefix}g++ and {prefix}nm")
    target = tmp_path / f"{isa}.o"
    flags = [*build_table()[isa].split(), "-O1", "-std=c++17", "-fPIC", "-fvisibility=hidden"]
    table = f"sparsekit_kernels_{isa}"
    defines = [f'-DSPARSEKIT_ISA_HEADER="isa/{isa}.h"', f"-DSPARSEKIT_TABLE={table}"]
    source = CSRC / "kernels" / "table.cpp"
    subprocess.run([prefix + "g++", *flags, *defines, "-c", str(source), "-o", str(target)], check=True)
    names = [prefix + "nm", "--defined-only", "--extern-only", str(target)]
    listing = subprocess.run(names, check=True, capture_output=True, text=True)
    symbols = [line.split()[-1] for line in listing.stdout.splitlines()]
    assert symbols == [table]


def test_no_catch_all_names_and_no_long_files():
    for path in [*PACKAGE.rglob("*.py"), *SOURCES, *(ROOT / "tests").rglob("*.py")]:
        assert not re.search(r"utils?|helpers?|common|misc", path.stem), path
        assert len(path.read_text().splitlines()) <= 400, path
