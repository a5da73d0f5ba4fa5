"""A recipe: the stages of a compression run, as YAML."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml
from pydantic import Field, create_model, model_validator

from sparsekit.recipes.data.settings import Data
from sparsekit.recipes.settings import Strict
from sparsekit.recipes.stages import STAGES
from sparsekit.recipes.stages.stage import StageKind, StageSettings


class _OneStage(Strict):
    """One stage: its name and its settings."""

    @model_validator(mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        named = {given: None} if isinstance(given, str) else given
        if not isinstance(named, dict) or len(named) != 1:
            raise ValueError(
                f"a stage is one of {', '.join(cls.model_fields)}, its settings indented below it; got "
                f"{reprlib.repr(given)}"
            )
        return {name: {} if settings is None else settings for name, settings in named.items()}

    @property
    def name(self) -> str:
        """Name of the stage."""
        return next(name for name in STAGES if getattr(self, name) is not None)

    @property
    def settings(self) -> StageSettings:
        """Its settings."""
        found: StageSettings = getattr(self, self.name)
        return found

    @property
    def kind(self) -> StageKind:
        """Its entry of `STAGES`."""
        return STAGES[self.name]


if TYPE_CHECKING:
    Stage: TypeAlias = _OneStage
else:
    #: One stage: a field for each entry of `STAGES`, exactly one of which is set.
    Stage = create_model(
        "Stage", __base__=_OneStage, **{name: (kind.settings | None, None) for name, kind in STAGES.items()}
    )


class Recipe(Strict):
    """The task, data and stages of a compression run."""

    task: Literal["classification", "embedding", "language"]
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: Data = Field(default_factory=Data)
    stages: list[Stage] = Field(min_length=1)

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages with their numbers, such as "1-prune"."""
        return [f"{number}-{stage.name}" for number, stage in enumerate(self.stages, 1)]

    @property
    def columns(self) -> tuple[str, str | None, str | None]:
        """Names of the columns of texts, second texts and labels; classifiers always have labels."""
        label = "label" if self.task == "classification" and self.data.label is None else self.data.label
        return self.data.text, self.data.pair, label

    @property
    def new_head(self) -> bool:
        """Whether the first stage can train a new head."""
        return self.stages[0].name == "finetune"

    @property
    def needs_validation(self) -> bool:
        """Whether a stage scores the model while it trains."""
        return any(stage.settings.needs_validation for stage in self.stages)

    @property
    def needs_labels(self) -> bool:
        """Whether a stage reads labels, in a classification recipe."""
        return self.task == "classification" and any(stage.settings.needs_labels for stage in self.stages)

    def to_yaml(self) -> str:
        """The recipe with all its settings."""
        plain = self.model_dump(mode="json")
        plain["stages"] = [{stage.name: stage.settings.model_dump(mode="json")} for stage in self.stages]
        return str(yaml.safe_dump(plain, sort_keys=False))
