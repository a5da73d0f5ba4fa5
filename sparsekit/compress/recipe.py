"""A recipe: what to do with a model, stage by stage, as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparsekit.pruning import Schedule
from sparsekit.pruning.masks import structure_sparsity
from sparsekit.pruning.weights import wanted_sparsity
from sparsekit.training.settings import TrainSettings


class _Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    """Columns of the tables, and how texts are cut."""

    text: str = "text"
    pair: str | None = None
    label: str | None = None
    max_tokens: int = Field(default=128, ge=1)
    batch_size: int = Field(default=32, ge=1)
    test_part: float = Field(default=0.1, ge=0, lt=1)  # of the data, where no test file is given


class _Training(_Strict):
    epochs: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup: float = Field(default=0.06, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=200, ge=1)
    freeze: list[str] | None = None  # modules whose parameters stay; None: the embeddings of tokens

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        self.settings(0)
        return self

    def settings(self, seed: int) -> TrainSettings:
        """The same for `train`."""
        names = [field.name for field in fields(TrainSettings) if field.name != "seed"]
        return TrainSettings(seed=seed, **{name: getattr(self, name) for name in names})


class Finetune(_Training):
    """Train on labels (classification) or the next token (language)."""


class Gradual(_Strict):
    """Prune in steps while a stage trains, instead of at once."""

    sparsity: float = Field(gt=0, lt=1)
    initial_sparsity: float = Field(default=0.0, ge=0, lt=1)
    start: float = Field(default=0.0, ge=0, lt=1)  # parts of the stage's steps
    end: float = Field(default=0.7, gt=0, le=1)
    frequency: int = Field(default=20, ge=1)
    rise: Literal["linear", "cubic"] = "cubic"
    scope: Literal["row", "layer", "global"] = "global"
    mask_structure: str = "unstructured"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if structure_sparsity(self.mask_structure) is not None:
            raise ValueError(f"mask_structure {self.mask_structure!r} fixes the sparsity, which cannot rise")
        self.schedule(1000)
        return self

    def schedule(self, steps: int) -> Schedule:
        """When to prune in a run of so many steps; the last time before its last step."""
        return Schedule(
            self.sparsity,
            self.initial_sparsity,
            start=round(self.start * steps),
            end=min(steps - 1, round(self.end * steps)),
            frequency=self.frequency,
            rise=self.rise,
        )


class Distil(_Training):
    """Learn from the model as it was before it was pruned, or from another one."""

    teacher: Path | None = None  # a model folder; None: the model before pruning
    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.2, ge=0, le=1)  # weight of the labels
    soft_weight: float = Field(default=1.0, ge=0)
    hidden_weight: float = Field(default=1.0, ge=0)  # of SquareHead on every block; 0: without
    top_k: int = Field(default=64, ge=1)  # logits that are kept of a language model's teacher
    cache: bool = True  # keep the teacher's answers on disk, for more than one epoch
    gradual: Gradual | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.soft_weight and not self.hidden_weight:
            raise ValueError("soft_weight and hidden_weight are both 0: there is nothing to follow")
        return self


class Prune(_Strict):
    """Set weights to zero."""

    sparsity: float | None = Field(default=None, ge=0, lt=1)
    criterion: Literal["one_shot", "second_order", "magnitude", "wanda", "taylor", "fisher"] = "one_shot"
    mask_structure: str = "unstructured"
    scope: Literal["row", "layer", "global"] | None = None
    samples: int = Field(default=512, ge=1)  # texts to calibrate on
    targets: list[str] = ["Linear"]
    ignore: list[str] | None = None  # None: every layer outside the model's blocks

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted_sparsity(self.sparsity, None, self.mask_structure)
        if self.scope is not None and self.criterion in ("one_shot", "second_order"):
            raise ValueError(f"criterion {self.criterion!r} prunes every layer alike; leave out scope")
        return self

    @property
    def wanted(self) -> float:
        """The sparsity, given or implied by the structure."""
        return wanted_sparsity(self.sparsity, None, self.mask_structure) or 0.0


class PruneNeurons(_Strict):
    """Remove hidden units of the MLPs: the layers shrink."""

    fraction: float = Field(gt=0, lt=1)
    criterion: Literal["activation", "magnitude", "taylor"] = "activation"
    scope: Literal["layer", "global"] = "layer"
    samples: int = Field(default=512, ge=1)


class PruneHeads(_Strict):
    """Remove attention heads: the layers shrink."""

    fraction: float = Field(gt=0, lt=1)
    criterion: Literal["activation", "magnitude", "taylor"] = "taylor"
    scope: Literal["layer", "global"] = "layer"
    samples: int = Field(default=512, ge=1)


class Shorten(_Strict):
    """Keep so many of the model's blocks, evenly spaced."""

    layers: int = Field(ge=1)


class Convert(_Strict):
    """Swap pruned layers for sparse ones."""

    values: Literal["float32", "bf16", "fp16", "int8"] = "float32"
    tokens: list[int] = [1, 128]
    min_sparsity: float | None = None
    error_budget: float | None = None


class Evaluate(_Strict):
    """Score the model on the test data now."""


class Stage(_Strict):
    """One stage: its name and its settings."""

    finetune: Finetune | None = None
    shorten: Shorten | None = None
    prune_neurons: PruneNeurons | None = None
    prune_heads: PruneHeads | None = None
    prune: Prune | None = None
    distil: Distil | None = None
    convert: Convert | None = None
    evaluate: Evaluate | None = None

    @model_validator(mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        named = {given: None} if isinstance(given, str) else given
        if not isinstance(named, dict) or len(named) != 1:
            raise ValueError(f"a stage is one of {', '.join(cls.model_fields)} with its settings, got {given!r}")
        return {name: {} if settings is None else settings for name, settings in named.items()}

    @property
    def name(self) -> str:
        """Which stage it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> Any:
        """Its settings."""
        return getattr(self, self.name)


class Recipe(_Strict):
    """What to do with a model."""

    task: Literal["classification", "embedding", "language"]
    seed: int = 0
    data: Data = Field(default_factory=Data)
    stages: list[Stage] = Field(min_length=1)

    def to_yaml(self) -> str:
        """The recipe with all its settings."""
        plain = self.model_dump(mode="json")
        plain["stages"] = [{stage.name: stage.settings.model_dump(mode="json")} for stage in self.stages]
        return str(yaml.safe_dump(plain, sort_keys=False))


#: Criteria that need the loss of labels.
OF_LOSS = ("second_order", "taylor", "fisher")


def needs_labels(recipe: Recipe) -> bool:
    """Whether a stage of a classification reads labels."""
    return recipe.task == "classification" and any(
        stage.finetune is not None
        or stage.evaluate is not None
        or (stage.distil is not None and stage.distil.alpha > 0 and stage.distil.soft_weight > 0)
        or getattr(stage.settings, "criterion", "") in OF_LOSS
        for stage in recipe.stages
    )


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    """Line of what stands at a place of a YAML document, or of the nearest thing around it."""
    line = 1
    for step in place:
        if node is not None:
            line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _allowed(place: Sequence[int | str]) -> str:
    """Keys that a recipe knows where an unknown one stands."""
    model: Any = Recipe
    for step in place[:-1]:
        if isinstance(step, int):
            model = Stage
        else:
            annotation = model.model_fields[step].annotation
            model = next((one for one in get_args(annotation) or (annotation,) if hasattr(one, "model_fields")), model)
    return ", ".join(model.model_fields)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or no recipe: with the line, what was found and what is allowed there.
    """
    text = path.read_text()
    try:
        content, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = []
        for one in error.errors():
            place = one["loc"]
            text = f"{path}, line {_line(node, place)}: {'.'.join(map(str, place)) or 'the recipe'}: {one['msg']}"
            if one["type"] == "extra_forbidden":
                text += f"; allowed here: {_allowed(place)}"
            problems.append(text)
        raise ValueError("\n".join(problems)) from error
