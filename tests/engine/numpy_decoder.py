"""Reference decoder in numpy, from the bytes of a compiled model as docs/compiled-model.md specifies."""

import struct

import numpy as np
from scipy.special import ndtr

from sparsekit import runtime
from sparsekit.engine.compiled_file import KINDS, NO_LAYER, ROLES, aligned_buffer
from sparsekit.formats import CSR

_ROLES = {number: role for role, number in ROLES.items()}
_KINDS = {number: kind for kind, number in KINDS.items()}
_OPTIONS = ("layers", "head_dim", "activation", "norm", "parallel", "norm_eps", "attention_scale")
_OPTIONS += ("attention_cap", "logit_cap", "embedding_scale")


def options_of(data: bytes) -> dict[str, float]:
    """The options in the header, by name."""
    assert struct.unpack_from("<I", data, 72) == (1,)
    assert not any(data[64:68])
    assert not any(data[76:128])
    return dict(zip(_OPTIONS, struct.unpack_from("<5i5f", data, 24), strict=True))


def entries_of(data: bytes) -> dict[tuple[int, str], tuple[str, tuple[int, int], bytes]]:
    """Layer and role of each tensor -> how it is stored, its shape and bytes; the layer of those of none is -1."""
    count = struct.unpack_from("<I", data, 12)[0]
    found = {}
    for number in range(count):
        layer, role, kind, _, rows, columns, start, size = struct.unpack_from("<4I2q2Q", data, 128 + 48 * number)
        key = (-1 if layer == NO_LAYER else layer, _ROLES[role])
        found[key] = _KINDS[kind], (rows, columns), data[start : start + size]
    return found


def aligned(data: bytes) -> np.ndarray:
    """The bytes where a packed weight must lie, uint8."""
    buffer = aligned_buffer(len(data))
    buffer[:] = np.frombuffer(data, np.uint8)
    return buffer


def _numbers(kind: str, shape: tuple[int, int], data: bytes) -> np.ndarray:
    """A tensor in float64; vectors have one dimension."""
    if kind == "packed":
        values = CSR.unpack(aligned(data)).to_dense()
    elif kind == "scaled_rows":
        scales = np.frombuffer(data, np.float32, shape[0])
        values = scales[:, None] * np.frombuffer(data, np.int8, offset=4 * shape[0]).reshape(shape)
    else:
        values = np.frombuffer(data, np.float32).reshape(shape)
    assert values.shape == shape
    return values.astype(np.float64) if shape[1] > 1 else values.astype(np.float64).reshape(-1)


class NumpyDecoder:
    """A causal language model.

    Args:
        data: the bytes of a compiled model.

    `options` are those of its header, `tensors` all tensors by layer, or -1, and role, float64.
    """

    def __init__(self, data: bytes) -> None:
        self.options = options_of(data)
        self.tensors = {key: _numbers(*entry) for key, entry in entries_of(data).items()}
        self._activation = {number: name for name, number in runtime.ACTIVATIONS.items()}[self.options["activation"]]

    def _get(self, role: str, layer: int = -1) -> np.ndarray | None:
        return self.tensors.get((layer, role))

    def logits(self, ids: list[int]) -> np.ndarray:
        """float64, shape [tokens, vocabulary]."""
        words = self._get("word_embeddings")
        x = words[ids] * self.options["embedding_scale"]
        positions = self._get("position_embeddings")
        if positions is not None:
            x = x + positions[: len(ids)]
        for layer in range(self.options["layers"]):
            x = self._block(layer, x)
        head, bias = self._get("head"), self._get("head_bias")
        logits = self._norm("final_norm", -1, x) @ (words if head is None else head).T
        return _capped(logits if bias is None else logits + bias, self.options["logit_cap"])

    def _block(self, layer: int, x: np.ndarray) -> np.ndarray:
        attended = self._attention(layer, self._norm("attention_norm", layer, x))
        with_attention = x + self._norm("attention_post_norm", layer, attended)
        fed = x if self.options["parallel"] else with_attention
        hidden = self._feed_forward(layer, self._norm("output_norm", layer, fed))
        return with_attention + self._norm("feed_forward_post_norm", layer, hidden)

    def _norm(self, kind: str, layer: int, x: np.ndarray) -> np.ndarray:
        """Rows as they are where the norm is missing."""
        weight = self._get(f"{kind}_weight", layer)
        if weight is None:
            return x
        if self.options["norm"] == 1:
            return self._root_mean_square(x, weight)
        apart = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((apart**2).mean(axis=-1, keepdims=True) + self.options["norm_eps"])
        return apart / deviation * weight + self._get(f"{kind}_bias", layer)

    def _root_mean_square(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.options["norm_eps"]) * weight

    def _linear(self, kind: str, layer: int, x: np.ndarray) -> np.ndarray:
        bias = self._get(f"{kind}_bias", layer)
        product = x @ self._get(kind, layer).T
        return product if bias is None else product + bias

    def _feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        hidden = _ACTIVATIONS[self._activation](self._linear("up", layer, x))
        if self._get("gate", layer) is not None:
            hidden = hidden * self._linear("gate", layer, x)
        return self._linear("down", layer, hidden)

    def _heads(self, kind: str, layer: int, x: np.ndarray) -> np.ndarray:
        """Queries, keys or values, shape [heads, tokens, features of a head]."""
        states = self._linear(kind, layer, x)
        norm = self._get(f"{kind}_norm_weight", layer)
        if norm is not None and len(norm) == states.shape[1]:
            states, norm = self._root_mean_square(states, norm), None
        states = states.reshape(len(x), -1, self.options["head_dim"]).swapaxes(0, 1)
        return states if norm is None else self._root_mean_square(states, norm)

    def _rotated(self, layer: int, states: np.ndarray) -> np.ndarray:
        kinds = self._get("rotary_kinds")
        kind = 0 if kinds is None else int(kinds[layer])
        if kind == 0:
            return states
        table = self._get(("rotary", "local_rotary")[kind - 1])[: states.shape[1]]
        half = table.shape[1] // 2
        cosines, sines, x, y = table[:, :half], table[:, half:], states[..., :half], states[..., half : 2 * half]
        return np.concatenate([x * cosines - y * sines, y * cosines + x * sines, states[..., 2 * half :]], axis=-1)

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        query, key, value = (self._heads(kind, layer, x) for kind in ("query", "key", "value"))
        query, key = self._rotated(layer, query), self._rotated(layer, key)
        key, value = (states.repeat(len(query) // len(key), axis=0) for states in (key, value))
        scores = _capped(query @ key.swapaxes(1, 2) * self.options["attention_scale"], self.options["attention_cap"])
        distances = np.arange(len(x))[:, None] - np.arange(len(x))
        windows = self._get("windows")
        window = int(windows[layer]) if windows is not None and windows[layer] else len(x)
        scores = np.where((distances >= 0) & (distances < window), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        context = weights / weights.sum(axis=-1, keepdims=True) @ value
        return self._linear("attention_output", layer, context.swapaxes(0, 1).reshape(len(x), -1))


def _capped(x: np.ndarray, cap: float) -> np.ndarray:
    return cap * np.tanh(x / cap) if cap else x


_ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}
