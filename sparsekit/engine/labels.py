"""Labels of a classifier: their names, and probabilities from logits, as configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.engine.refusals import refusal

#: Activation functions that `CrossEncoder` applies to a logit.
_RANKING = {"torch.nn.modules.linear.Identity": False, "torch.nn.modules.activation.Sigmoid": True}


@dataclass(frozen=True)
class Classification:
    """Classification of a text."""

    label: str  # the most probable one
    score: float  # its probability
    probabilities: Mapping[str, float]  # of every label; they add up to 1 unless the model is multi-label


class Labels:
    """The labels of a model.

    Args:
        config: content of config.json, or empty.
        sentence_config: content of config_sentence_transformers.json, or empty.
        count: number of logits.

    `names` are the names of the labels.

    Raises:
        ValueError: the configuration is invalid.
    """

    def __init__(self, config: Mapping[str, Any], sentence_config: Mapping[str, Any], count: int) -> None:
        self._config = config
        self._sentence_config = sentence_config
        self._count = count
        self.names = self._read_names()
        self._is_sigmoid = config.get("problem_type") == "multi_label_classification" or count == 1

    def _read_names(self) -> tuple[str, ...]:
        given = self._config.get("id2label") or {}
        if not isinstance(given, dict):
            raise ValueError(f"id2label of config.json must map numbers to names, got {given!r:.80}")
        return tuple(str(given.get(str(number), f"LABEL_{number}")) for number in range(self._count))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of the labels, float32, shape [rows, labels]: softmax, or sigmoid if multi-label.

        Raises:
            ValueError: the model is a regressor, without labels.
        """
        if self._config.get("problem_type") == "regression":
            raise ValueError("the model predicts a number and has no probabilities; use logits, or rank for pairs")
        if self._is_sigmoid:
            return _sigmoid(logits)
        parts: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts /= parts.sum(axis=1, keepdims=True)
        return parts

    def classified(self, logits: NDArray[np.float32]) -> list[Classification]:
        """Classifications from rows of logits.

        Raises:
            ValueError: as `probabilities`.
        """
        return [self._classified(row) for row in self.probabilities(logits).tolist()]

    def _classified(self, row: list[float]) -> Classification:
        best = max(range(self._count), key=row.__getitem__)
        return Classification(self.names[best], row[best], dict(zip(self.names, row, strict=True)))

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of pairs, float32, shape [pairs], as in `CrossEncoder.predict`: sigmoid unless configured otherwise.

        Raises:
            ValueError: the model has several logits, or an unknown activation function.
        """
        if self._count != 1:
            raise ValueError(f"rank needs a model with one logit, got one of {self._count} labels; use classify")
        return (_sigmoid(logits) if self._ranks_by_sigmoid() else logits).reshape(-1)

    def _ranks_by_sigmoid(self) -> bool:
        options = self._config.get("sentence_transformers")
        older = options.get("activation_fn") if isinstance(options, dict) else None
        name = (
            self._sentence_config.get("activation_fn")
            or older
            or self._config.get("sbert_ce_default_activation_function")
        )
        if name is None:
            return True
        if not isinstance(name, str) or name not in _RANKING:
            raise refusal(f"ranking by {name!r:.80}, only by {', '.join(_RANKING)}")
        return _RANKING[name]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.exp(-np.logaddexp(np.float32(0), -logits))
