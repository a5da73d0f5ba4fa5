"""A recipe: what to do with a model, stage by stage, as YAML."""

from __future__ import annotations

import reprlib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sparsekit.pruning import METHODS, Schedule
from sparsekit.pruning.masks import structure_sparsity
from sparsekit.pruning.sparsity import wanted_sparsity
from sparsekit.training.settings import TrainSettings


def _quoted(structure: Any) -> Any:
    if isinstance(structure, int) and structure > 60:
        kept, group = divmod(structure, 60)
        raise ValueError(f"YAML reads {kept}:{group} as the number {structure}; put it in quotes: '{kept}:{group}'")
    return structure


#: What nobody means to exceed: beyond it memory or a lifetime ends.
_MOST_BATCH, _MOST_TOKENS, _MOST_EPOCHS = 2**16, 2**20, 10**6


#: Of a mask: "unstructured", "N:M" or "RxC".
Structure = Annotated[str, BeforeValidator(_quoted)]


class _Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Strict):
    """Columns of the tables, and how texts are cut."""

    text: str = "text"
    pair: str | None = None
    label: str | None = None
    max_tokens: int = Field(default=128, ge=1, le=_MOST_TOKENS)
    batch_size: int = Field(default=32, ge=1, le=_MOST_BATCH)
    test_part: float = Field(default=0.1, ge=0, lt=1)  # of the data, where no test file is given
    validation_part: float = Field(default=0.1, ge=0, lt=1)  # of what is left, where a stage asks and no file is given


class _Rise(_Strict):
    start: float = Field(default=0.0, ge=0, lt=1)  # parts of the stage's steps
    end: float = Field(default=0.7, gt=0, le=1)
    rise: Literal["linear", "cubic"] = "cubic"

    def _schedule(self, steps: int, **changes: Any) -> Schedule:
        """When to prune in a run of so many steps; the last time before its last step."""
        start, end = round(self.start * steps), min(steps - 1, round(self.end * steps))
        return Schedule(start=start, end=end, rise=self.rise, **changes)


class Gradual(_Rise):
    """Prune by magnitude in steps while a stage trains, instead of at once."""

    sparsity: float = Field(gt=0, lt=1)
    initial_sparsity: float = Field(default=0.0, ge=0, lt=1)
    frequency: int = Field(default=20, ge=1)
    scope: Literal["row", "layer", "global"] = "global"
    mask_structure: Structure = "unstructured"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if structure_sparsity(self.mask_structure) is not None:
            raise ValueError(f"mask_structure {self.mask_structure!r} fixes the sparsity, which cannot rise")
        self.schedule(1000)
        return self

    def schedule(self, steps: int) -> Schedule:
        """When to prune, and how far, in a run of so many steps."""
        return self._schedule(
            steps, final_sparsity=self.sparsity, initial_sparsity=self.initial_sparsity, frequency=self.frequency
        )


class Movement(_Rise):
    """Learn scores while a stage trains, which say what weights stay: hard to a sparsity, or soft by a penalty."""

    sparsity: float | None = Field(default=None, gt=0, lt=1)  # hard: of every layer
    penalty: float | None = Field(default=None, gt=0)  # soft: weight of the mean of sigmoid(score) in the loss
    threshold: float | None = Field(default=None, gt=0, lt=0.5)  # soft: a weight stays while sigmoid(score) is above
    learning_rate: float = Field(default=1e-2, gt=0)  # of the scores

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.sparsity is None) == (self.penalty is None):
            raise ValueError("give sparsity for hard movement pruning, or penalty for soft")
        if self.threshold is not None and self.penalty is None:
            raise ValueError("threshold is of soft movement pruning; leave it out, or give penalty instead of sparsity")
        self.schedule(1000)
        return self

    def schedule(self, steps: int) -> Schedule:
        """How sparsity, or the weight of the penalty, rises in a run of so many steps."""
        return self._schedule(steps, final_sparsity=self.sparsity or 0.0)


class _Training(_Strict):
    epochs: float = Field(default=1.0, gt=0, le=_MOST_EPOCHS)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup: float = Field(default=0.06, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1, le=_MOST_BATCH)
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    checkpoint_minutes: float = Field(default=2.0, ge=0)  # from one checkpoint to the next
    shard: bool = False  # over the processes, where the model does not fit beside its gradients
    freeze: list[str] | None = None  # modules whose parameters stay; None: the embeddings of tokens
    gradual: Gradual | None = None
    movement: Movement | None = None

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        if self.gradual is not None and self.movement is not None:
            raise ValueError("gradual and movement both prune while the stage trains; leave out one")
        if self.patience and self.movement is not None and self.movement.penalty is not None:
            raise ValueError("soft movement pruning changes the sparsity until its last step; leave out patience")
        if self.shard and self.movement is not None and self.movement.penalty is not None:
            raise ValueError(
                "soft movement pruning does not work on sharded weights; give sparsity, or leave out shard"
            )
        self.settings(0)
        return self

    @property
    def pruning(self) -> Gradual | Movement | None:
        """What is pruned while the stage trains."""
        return self.gradual or self.movement

    def settings(self, seed: int) -> TrainSettings:
        """The same for `train`."""
        given_by_the_run = ("seed", "patience_from")
        names = [field.name for field in fields(TrainSettings) if field.name not in given_by_the_run]
        return TrainSettings(seed=seed, **{name: getattr(self, name) for name in names})


class Finetune(_Training):
    """Train on labels (classification) or the next token (language)."""


class Distill(_Training):
    """Learn from the model as it was before it was pruned, or from another one."""

    teacher: Path | None = None  # a model folder; None: the model before pruning
    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.2, ge=0, le=1)  # weight of the labels
    soft_weight: float = Field(default=1.0, ge=0)  # of the teacher's logits or embeddings
    similarity_weight: float = Field(default=0.0, ge=0)  # embeddings: of what else of the batch a text is like
    hidden_weight: float = Field(default=1.0, ge=0)  # of every block's hidden states; 0: without
    hidden_loss: Literal["square_head", "hidden_states"] = "square_head"  # the second with a projection between widths
    attention_weight: float = Field(default=0.0, ge=0)  # of every block's attention maps
    layer_map: dict[str, str] | None = None  # student's block: the teacher's, by name or re:; None: spread evenly
    top_k: int = Field(default=64, ge=1, le=_MOST_TOKENS)  # logits that are kept of a language model's teacher
    cache: bool = True  # keep the teacher's answers on disk, for more than one epoch

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.soft_weight and not self.layers:
            raise ValueError("soft_weight, hidden_weight and attention_weight are all 0: there is nothing to follow")
        if self.similarity_weight and not self.soft_weight:
            raise ValueError("similarity_weight is a part of the loss that soft_weight weighs, which is 0")
        if self.layer_map is not None and not self.layers:
            raise ValueError("layer_map is of hidden states and attention maps: weigh one of them, or leave it out")
        return self

    @property
    def layers(self) -> tuple[str, ...]:
        """Outputs of one tensor a block that are followed."""
        weights = {"hidden_states": self.hidden_weight, "attentions": self.attention_weight}
        return tuple(name for name, weight in weights.items() if weight > 0)


class Prune(_Strict):
    """Set weights to zero."""

    sparsity: float | None = Field(default=None, ge=0, lt=1)
    criterion: Literal["sparsegpt", "obert", "magnitude", "wanda", "taylor", "fisher"] = "sparsegpt"
    mask_structure: Structure = "unstructured"
    scope: Literal["row", "layer", "global"] | None = None
    spread: float = Field(default=0.0, ge=0, le=1)  # how far a layer's sparsity may be from that of all; 0: alike
    samples: int = Field(default=512, ge=1)  # texts to calibrate on
    targets: list[str] = ["Linear"]
    ignore: list[str] | None = None  # None: every layer outside the model's blocks

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted_sparsity(self.sparsity, None, self.mask_structure)
        if self.scope is not None and not METHODS[self.criterion].scopes:
            raise ValueError(f"criterion {self.criterion!r} prunes layer by layer; leave out scope")
        if self.spread and (self.scope == "global" or structure_sparsity(self.mask_structure) is not None):
            raise ValueError("spread is for layers whose sparsity is free: leave out scope global, N:M, or spread")
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


class DropLayers(_Strict):
    """Keep so many of the model's blocks, evenly spaced."""

    layers: int = Field(ge=1)


class Convert(_Strict):
    """Swap pruned layers for sparse ones."""

    dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    tokens: list[Annotated[int, Field(ge=1, le=_MOST_TOKENS)]] = Field(default=[1, 128], min_length=1, max_length=16)
    min_sparsity: float | None = Field(default=None, ge=0, le=1)
    error_budget: float | None = Field(default=None, gt=0)


class Evaluate(_Strict):
    """Score the model on the test data now."""


class Stage(_Strict):
    """One stage: its name and its settings."""

    finetune: Finetune | None = None
    drop_layers: DropLayers | None = None
    prune_neurons: PruneNeurons | None = None
    prune_heads: PruneHeads | None = None
    prune: Prune | None = None
    distill: Distill | None = None
    convert: Convert | None = None
    evaluate: Evaluate | None = None

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
        """Which stage it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> Any:
        """Its settings."""
        return getattr(self, self.name)


class Recipe(_Strict):
    """What to do with a model."""

    task: Literal["classification", "embedding", "language"]
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: Data = Field(default_factory=Data)
    stages: list[Stage] = Field(min_length=1)

    def to_yaml(self) -> str:
        """The recipe with all its settings."""
        plain = self.model_dump(mode="json")
        plain["stages"] = [{stage.name: stage.settings.model_dump(mode="json")} for stage in self.stages]
        return str(yaml.safe_dump(plain, sort_keys=False))


def evaluates_while_training(recipe: Recipe) -> bool:
    """Whether a stage scores the model as it trains, which takes validation data."""
    return any(getattr(stage.settings, "evaluate_every", 0) > 0 for stage in recipe.stages)


def needs_loss(stage: Stage) -> bool:
    """Whether a stage that removes something asks what the loss of labels says of it."""
    settings = stage.settings
    criterion = getattr(settings, "criterion", None)
    return (criterion is not None and METHODS[criterion].needs_loss) or getattr(settings, "spread", 0) > 0


def needs_labels(recipe: Recipe) -> bool:
    """Whether a stage of a classification reads labels."""
    return recipe.task == "classification" and any(
        stage.finetune is not None
        or stage.evaluate is not None
        or (stage.distill is not None and stage.distill.alpha > 0 and stage.distill.soft_weight > 0)
        or needs_loss(stage)
        for stage in recipe.stages
    )
