"""Layer maps: which layer of the teacher each layer of the student learns from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def check_layers(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> None:
    """Raise ValueError unless both have the same number of layers, at least one, with the same shapes."""
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"student and teacher must have as many layers, at least one, got {len(student)} and {len(teacher)}; "
            "choose the teacher's with LayerMap"
        )
    for number, (student_layer, teacher_layer) in enumerate(zip(student, teacher, strict=True)):
        if student_layer.shape != teacher_layer.shape:
            raise ValueError(
                f"layer {number} of student and teacher must have the same shape, got {list(student_layer.shape)} and "
                f"{list(teacher_layer.shape)}"
            )


def _followed(name: str, rules: Mapping[str, str]) -> str | None:
    """Name of the teacher's module for a module of the student, None where no rule matches it."""
    for pattern, target in rules.items():
        if pattern == name:
            return target
        match = re.fullmatch(pattern[3:], name) if pattern.startswith("re:") else None
        if match is not None:
            return match.expand(target)
    return None


class LayerMap:
    """For each layer of a student, the layer of the teacher that it learns from.

    Args:
        pairs: (student's layer, teacher's layer), counted from 0; each layer of the student at most once.

    Raises:
        ValueError: there are no pairs, a number is negative, or a student's layer is repeated.

    >>> LayerMap.even(3, 6).pairs
    ((0, 1), (1, 3), (2, 5))
    """

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.pairs = tuple(sorted((int(student), int(teacher)) for student, teacher in pairs))
        students = [student for student, _ in self.pairs]
        if not self.pairs or min(min(pair) for pair in self.pairs) < 0 or len(set(students)) < len(students):
            raise ValueError(
                "a layer map needs pairs (student's layer, teacher's layer), counted from 0, each layer of the student "
                f"once, got {list(self.pairs)}"
            )

    @classmethod
    def even(cls, student_layers: int, teacher_layers: int) -> LayerMap:
        """Evenly spaced, the student's last layer mapped to the teacher's last.

        Raises:
            ValueError: the student has no layers, or more than the teacher.
        """
        if not 0 < student_layers <= teacher_layers:
            raise ValueError(
                f"a student of {student_layers} layers cannot follow a teacher of {teacher_layers}: it needs at least "
                "one, and no more than the teacher"
            )
        return cls((layer, (layer + 1) * teacher_layers // student_layers - 1) for layer in range(student_layers))

    @classmethod
    def by_name(cls, rules: Mapping[str, str], student: Sequence[str], teacher: Sequence[str]) -> LayerMap:
        r"""Map by module names, as for the outputs that `Features` records.

        Args:
            rules: student's module -> teacher's. A key may be "re:" and a regular expression for the whole name, whose
                groups the teacher's name refers to. The first matching rule counts; modules without one are omitted.
            student: names in the order of the student's tensors.
            teacher: names in the order of the teacher's tensors.

        Raises:
            ValueError: no rule matches, or a rule names a module that is not in `teacher`.

        >>> student, teacher = ["layer.0", "layer.1"], ["blocks.0", "blocks.1", "blocks.2"]
        >>> LayerMap.by_name({"layer.0": "blocks.0", "layer.1": "blocks.2"}, student, teacher).pairs
        ((0, 0), (1, 2))
        >>> LayerMap.by_name({r"re:layer\.(\d+)": r"blocks.\1"}, student, teacher).pairs
        ((0, 0), (1, 1))
        """
        pairs = []
        for number, name in enumerate(student):
            followed = _followed(name, rules)
            if followed is not None and followed not in teacher:
                raise ValueError(f"{name} is to follow {followed!r}; the teacher's are {', '.join(teacher)}")
            if followed is not None:
                pairs.append((number, teacher.index(followed)))
        if not pairs:
            raise ValueError(f"no rule of {', '.join(rules)} fits any of {', '.join(student)}")
        return cls(pairs)

    def __call__(self, student: Sequence[T], teacher: Sequence[T]) -> tuple[list[T], list[T]]:
        """Select the mapped layers' values of both, in the student's order.

        Raises:
            ValueError: either has fewer layers than the map requires.
        """
        for whose, layers, number in (
            ("student", student, max(number for number, _ in self.pairs)),
            ("teacher", teacher, max(number for _, number in self.pairs)),
        ):
            if number >= len(layers):
                raise ValueError(f"the layer map names layer {number} of the {whose}, which has {len(layers)}")
        return [student[number] for number, _ in self.pairs], [teacher[number] for _, number in self.pairs]
