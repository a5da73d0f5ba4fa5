"""The pruned language models of the frontier: in one shot, and recovered as the recipe `language-50-recovery` does.

In float32, and calibrated on fewer windows than there.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from wordnet import noun_glosses

from sparsekit import convert, finalize, prune_sparsegpt, save
from sparsekit.bench.film_reviews import load_splits
from sparsekit.checkpoint.transformers.foreign import from_folder
from sparsekit.distillation import Distillation, LayerMap, SquareHead, Teacher, TopSoftTargets
from sparsekit.distillation.teacher_outputs import teacher_outputs
from sparsekit.pruning import keep_zeros
from sparsekit.recipes import read_recipe
from sparsekit.recipes.data.batches import Batch, inputs_of, sample
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.tasks.language import Language
from sparsekit.recipes.tasks.named_outputs import NamedOutputs
from sparsekit.training import train

_RECIPE = read_recipe(Path(__file__).parent / "recipes" / "language-50-recovery.yaml")
_DISTILL: Any = _RECIPE.stages[-1].settings
#: Tokens of a window, to learn from and to predict.
WINDOW = _RECIPE.data.max_tokens
#: Reviews to predict, then those to learn from, as in `quality.py`.
_TESTS, _FIRST, _LEARNED = 120, 200, 6000
_DEFINITIONS = 1000
#: Windows that SparseGPT calibrates on.
_CALIBRATION = 128
_OUTSIDE_BLOCKS = ["lm_head"]


@dataclass(frozen=True)
class Pruned:
    """Two models of the frontier, before they are compiled: pruned in one shot, and then recovered.

    Attributes:
        sparsity: of the layers in the transformer blocks.
        rounded: to int4 while it was pruned; else weights are floats, which int8 rounds.
    """

    sparsity: float
    rounded: bool

    @property
    def one_shot(self) -> str:
        """Name of the folder of the model before it learned."""
        return f"{self.sparsity * 100:g}" + "-int4" * self.rounded

    @property
    def recovered(self) -> str:
        """Name of the folder of the model that the dense one taught."""
        return f"{self.one_shot}-recovered"


#: Those that tell most about the frontier come first.
PRUNED = [Pruned(0.0, False), Pruned(0.5, True), Pruned(0.5, False), Pruned(0.7, True), Pruned(0.7, False),
          Pruned(0.0, True), Pruned(0.6, True), Pruned(0.6, False)]  # fmt: skip


def unseen_texts() -> dict[str, list[str]]:
    """Texts that no model learned from: film reviews, and words of WordNet with their definitions."""
    glosses = noun_glosses()
    random.Random(0).shuffle(glosses)  # noqa: S311 - a shuffle, not a secret
    reviews = [row["text"] for row in load_splits(0).imdb[:_TESTS]]
    return {"reviews": reviews, "definitions": [f"{words}: {gloss}" for words, gloss in glosses[:_DEFINITIONS]]}


def _opened(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return from_folder(AutoModelForCausalLM.from_pretrained, folder).eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return from_folder(AutoTokenizer.from_pretrained, folder)


def _learned(tokenizer: Any) -> list[Batch]:
    texts = [row["text"] for row in load_splits(0).imdb[_FIRST : _FIRST + _LEARNED]]
    return Language().batches(tokenizer, Rows(texts, [], []), _RECIPE.data.batch_size, WINDOW)


def _store(model: Any, rounded: bool, tokenizer: Any, folder: Path) -> None:
    """Bake masks in and write a folder, which is complete once it has its name."""
    model = finalize(copy.deepcopy(model))
    part = folder.with_suffix(".part")
    if rounded:
        save(convert(model, dtype="int4", min_sparsity=0.0, ignore=_OUTSIDE_BLOCKS), part, tokenizer=tokenizer)
    else:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    part.rename(folder)


def _recover(model: Any, teacher: Any, batches: Sequence[Batch], checkpoint: Path) -> None:
    """Follow the dense model's logits and hidden states and the text itself, in the steps of the recipe."""
    asked = Teacher(NamedOutputs(teacher, ["hidden_states"]))
    targets = {"logits": TopSoftTargets(_DISTILL.temperature, _DISTILL.alpha), "hidden_states": SquareHead()}
    weights = {"logits": _DISTILL.soft_weight, "hidden_states": _DISTILL.hidden_weight}
    layers = model.config.num_hidden_layers
    objective = Distillation(targets, weights, LayerMap.even(layers, layers))

    def loss(student: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = inputs_of(batch)
        outputs = teacher_outputs(asked, inputs, ["hidden_states", "logits"], _DISTILL.top_k)
        found: torch.Tensor = objective(student(**inputs), outputs, batch)
        return found

    model.get_input_embeddings().weight.requires_grad_(False)
    settings = replace(_DISTILL.loop_settings(seed=0), precision="float32")
    train(NamedOutputs(model, ["hidden_states"]), batches, loss, settings, checkpoint=checkpoint, title=checkpoint.stem)


def _pruned(one: Pruned, dense: Path, batches: Sequence[Batch]) -> Any:
    model = _opened(dense)
    dtype = "int4" if one.rounded else None
    prune_sparsegpt(model, one.sparsity, sample(batches, _CALIBRATION, 0), ignore=_OUTSIDE_BLOCKS, dtype=dtype)
    return model


def _masked(one: Pruned, dense: Path, work: Path) -> Any:
    """A model of floats with its masks, as it was stored."""
    model = _opened(work / one.one_shot if one.sparsity else dense)
    keep_zeros(model)
    return model


def _make(one: Pruned, dense: Path, tokenizer: Any, batches: Sequence[Batch], work: Path) -> None:
    """In one shot, and recovered; rounding is no part of a folder of floats, so that a rounded one is pruned anew."""
    shot, recovered = work / one.one_shot, work / one.recovered
    model = None
    if one.rounded or (one.sparsity and not shot.exists()):
        model = _pruned(one, dense, batches)
        if not shot.exists():
            _store(model, one.rounded, tokenizer, shot)
    if not recovered.exists():
        model = model if one.rounded else _masked(one, dense, work)
        _recover(model, _opened(dense), batches, work / f"{one.recovered}.safetensors")
        _store(model, one.rounded, tokenizer, recovered)


def make(dense: Path, work: Path, wanted: Sequence[Pruned]) -> None:
    """Make the models that are not in `work` yet, a folder of each in one shot and one of it recovered.

    Args:
        dense: folder of the dense model.
        work: folder for the models.
        wanted: models to make, in this order.
    """
    tokenizer = _tokenizer(dense)
    batches = _learned(tokenizer)
    for one in wanted:
        if not (work / one.recovered).exists():
            _make(one, dense, tokenizer, batches, work)
