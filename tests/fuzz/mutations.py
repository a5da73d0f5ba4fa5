"""Ways to damage files, drawn by hypothesis: bytes anywhere, values inside JSON, and checksums that agree again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

from hypothesis import strategies as st

#: Numbers that sizes and offsets go wrong at.
NUMBERS = [-1, 0, 1, 2, 3, 2**8, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, 1e308]
WORDS = [
    "",
    ".",
    "..",
    "/",
    "../x",
    "a\0b",
    "F32",
    "BF16",
    "I64",
    "BOOL",
    "int8",
    "4x1",
    "csr",
    "dense",
    "sparse",
    "relu",
    "ü",
]
#: Values that are small in a file and large for what takes them apart.
_LARGE = [
    [1] * 5000,
    [2**62] * 5000,
    [0, 2**62, 2**62],
    "x" * 20_000,
    "a." * 5000,
    "\x1b[31m" * 1000,
    [[]] * 5000,
    {str(key): {} for key in range(2000)},
    json.loads("[" * 100 + "]" * 100),
    json.loads('{"a":' * 100 + "0" + "}" * 100),
    10**4000,
]
LARGE = [json.dumps(value) for value in _LARGE]
SCALARS = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.text(max_size=5))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path, *(place for key, one in inside for place in _places(one, (*path, key)))]


def _changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one thing inside it replaced, taken out or put there twice."""
    path = draw(st.sampled_from(_places(value)))
    if not path:
        return draw(st.one_of(SCALARS, st.lists(SCALARS, max_size=2)))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    match draw(st.sampled_from(["scalar", "scalar", "large", "remove", "copy", "copies", "wrap"])):
        case "scalar":
            holder[path[-1]] = draw(SCALARS)
        case "large":
            holder[path[-1]] = json.loads(draw(st.sampled_from(LARGE)))  # a copy: it may be changed next
        case "copies" if isinstance(holder, dict):
            holder.update((f"{path[-1]}{number}", holder[path[-1]]) for number in range(500))
        case "remove":
            del holder[path[-1]]
        case "copy" if isinstance(holder, dict):
            holder[draw(st.sampled_from([*holder, "0.bias", "x", *WORDS]))] = holder[path[-1]]
        case _:
            holder[path[-1]] = [holder[path[-1]]]
    return value


@st.composite
def json_changes(draw: st.DrawFn, text: bytes) -> bytes:
    """The text of a JSON object with up to three things changed."""
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return json.dumps(value).encode()


def _overwritten(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with up to four overwritten, so that nothing moves."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4)) if data else 0):
        at = draw(st.integers(0, len(changed) - 1))
        what = draw(st.one_of(st.sampled_from([b"\0", b"\1", b"\x7f", b"\xff", b"0", b"9"]), st.binary(max_size=8)))
        changed[at : at + len(what)] = what[: len(changed) - at]
    return bytes(changed)


@st.composite
def byte_changes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some overwritten, taken out or put in."""
    if draw(st.integers(0, 3)):
        return _overwritten(draw, data)
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=8)) + data[at + draw(st.sampled_from([0, 1, 8, 100])) :]


@st.composite
def safetensors_changes(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file with its header or its arrays changed, and the length of the header right."""
    length = 8 + int.from_bytes(data[:8], "little")
    header, arrays = data[8:length], data[length:]
    if draw(st.booleans()):
        header = draw(json_changes(header))
    else:
        arrays = _overwritten(draw, arrays)
    return len(header).to_bytes(8, "little") + header + arrays


def _arrays_resealed(value: Any, weights: bytes) -> None:
    """Give the entries of a manifest the checksums of the arrays' bytes."""
    length = 8 + int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8:length])
    for name, entry in value["arrays"].items():
        begin, end = header[name]["data_offsets"]
        entry["sha256"] = hashlib.sha256(weights[length + begin : length + end]).hexdigest()


def resealed(manifest: bytes, weights: bytes) -> bytes:
    """A manifest whose checksums agree with itself and with the weight file, as far as that can be."""
    try:
        value = json.loads(manifest)
    except ValueError:
        return manifest
    if not isinstance(value, dict):
        return manifest
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        _arrays_resealed(value, weights)
    sealed = {key: value.get(key) for key in ("arrays", "embeddings", "format", "layers", "library", "shared")}
    value["sha256"] = hashlib.sha256(json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps(value).encode()
