"""Architecture: imports between rooms, includes of kernels, symbols of their objects."""

import ast
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sparsekit"
CSRC = ROOT / "csrc"

NATIVE = ("sparsekit._C", "sparsekit.runtime", "sparsekit.formats", "sparsekit.ops", "sparsekit.nn")


@dataclass(frozen=True)
class Room:
    """A row of CONTRIBUTING's table."""

    modules: tuple[str, ...]  # dotted names
    forbidden: tuple[str, ...]  # last column


def rooms() -> list[Room]:
    """Python rooms of CONTRIBUTING's table, lowest first."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Rooms, lowest first")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if "`sparsekit/" in line and line[0] == "|"]
    found = []
    for row in rows:
        paths = re.findall(r"`(sparsekit/[^`]*)`", row[1])
        names = tuple(path.removesuffix(".py").strip("/").replace("/", ".") for path in paths)
        found.append(Room(names, tuple(row[3].strip("| ").split(", ")) if len(row) > 3 else ()))
    return found


ROOMS = [Room(("sparsekit._C",), ()), *rooms()]


def native_rooms() -> dict[str, tuple[str, ...]]:
    """Folders of `csrc` in CONTRIBUTING's table, lowest first, with its last column."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Rooms, lowest first")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| `csrc/(\w+)/` \| [^|]+ \|([^|]*)\|$", text, re.MULTILINE)
    return {name: tuple(forbidden.strip().split(", ")) for name, forbidden in rows}


NATIVE_ROOMS = native_rooms()


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


def is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def room_number(name: str) -> int | None:
    return next((number for number, room in enumerate(ROOMS) if is_in(name, room.modules)), None)


def forbidden_imports(name: str, word: str) -> list[str]:
    """Imports of a module that a word of the table's last column forbids."""
    if word == "torch":
        return [other for other in imports(MODULES[name], top_level_only=True) if is_in(other, ("torch",))]
    return [
        other
        for other in imports(MODULES[name])
        if is_in(other, NATIVE if word == "native code" else (f"sparsekit.{word}",))
    ]


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def test_the_table_of_rooms_is_found():
    assert len(ROOMS) > 15
    for room in ROOMS[1:]:
        for word in room.forbidden:
            assert word in ("", "torch", "native code") or room_number(f"sparsekit.{word}") is not None, word


def test_every_module_has_a_room():
    assert [name for name in MODULES if name != "sparsekit" and room_number(name) is None] == []


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"sparsekit"}))
def test_imports_go_only_downwards(name):
    above = [other for other in imports(MODULES[name]) if (room_number(other) or 0) > room_number(name)]
    assert above == []


@pytest.mark.parametrize("room", ROOMS[1:], ids=lambda room: room.modules[0])
def test_rooms_know_nothing_they_must_not(room):
    for name in filter(lambda name: is_in(name, room.modules), MODULES):
        for word in filter(None, room.forbidden):
            assert forbidden_imports(name, word) == [], (name, word)


def test_the_extension_is_imported_only_by_runtime_and_formats():
    users = {name for name, path in MODULES.items() if "sparsekit._C" in imports(path)}
    assert users
    assert all(is_in(name, ("sparsekit.runtime", "sparsekit.formats.csr")) for name in users)


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


def test_every_native_folder_is_a_room():
    assert {path.name for path in CSRC.iterdir()} == set(NATIVE_ROOMS)


@pytest.mark.parametrize("room", NATIVE_ROOMS)
def test_native_rooms_include_only_downwards(room):
    names = list(NATIVE_ROOMS)
    allowed = set(names[: names.index(room)]) - set(NATIVE_ROOMS[room])
    for path in (CSRC / room).rglob("*"):
        for header in includes(path) if path.is_file() else []:
            if header.startswith("../"):
                assert header.split("/")[1] in allowed, (path, header)


def build_table() -> dict[str, str]:
    """Instruction sets of the build's table with their flags, as the CMake file writes them."""
    text = (ROOT / "cmake" / "InstructionSets.cmake").read_text()
    return dict(re.findall(r"set\(SPARSEKIT_ISA_FLAGS_(\w+) ([^)]*)\)", text))


def test_the_two_lists_of_instruction_sets_agree():
    runtime_list = re.findall(r"X\((\w+),", (CSRC / "base" / "cpu.h").read_text())
    headers = {path.stem for path in (CSRC / "kernels" / "isa").glob("*.h")} - {"vector"}  # what all of them offer
    assert set(runtime_list) == set(build_table()) == headers


@pytest.mark.slow
@pytest.mark.parametrize("isa", sorted(build_table()))
def test_each_instruction_set_exports_one_symbol(isa, tmp_path):
    """Code compiled for a newer machine must not be linked into generic objects."""
    prefix = "aarch64-linux-gnu-" if isa.startswith("neon") and platform.machine() != "aarch64" else ""
    if shutil.which(prefix + "g++") is None or shutil.which(prefix + "nm") is None:
        pytest.skip(f"needs {prefix}g++ and {prefix}nm")
    target = tmp_path / f"{isa}.o"
    flags = [*build_table()[isa].split(), "-O1", "-std=c++20", "-fPIC", "-fvisibility=hidden"]
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
