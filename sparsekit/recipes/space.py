"""Whether the disk has room for what a run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from sparsekit.recipes import recipe
from sparsekit.recipes.job import Job
from sparsekit.recipes.keeping import stages_kept

#: A checkpoint: the weights, their masks as bytes, and two moments of AdamW.
_CHECKPOINT = 3.25
#: A stage that is kept: the model, and of masked layers the weights below the masks.
_KEPT = 2.25
_HALF = 2  # bytes of a number among the teacher's answers


def _bytes_of(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def _answers(job: Job, stage: recipe.Distill) -> int:
    """Bytes of the teacher's answers on disk, about: of hidden states, attention maps and a language model's logits."""
    config = job.model.config
    found = 0
    for batch in job.train if stage.cache else []:
        texts, tokens = batch["input_ids"].shape
        numbers = config.num_hidden_layers * (config.hidden_size * bool(stage.hidden_weight))
        numbers += config.num_hidden_layers * config.num_attention_heads * tokens * bool(stage.attention_weight)
        logits = stage.top_k if job.recipe.task == "language" and stage.soft_weight else 0
        found += texts * tokens * (numbers * _HALF + logits * (_HALF + 4))
    return found


def needed(job: Job, over: int) -> dict[str, int]:
    """Bytes that a run will write, by what they are for.

    Args:
        job: the job, before its stages.
        over: how many of them are over and kept already.
    """
    size = _bytes_of(job.model)
    left = job.recipe.stages[over:]
    training = [stage.settings for stage in left if isinstance(stage.settings, recipe.Finetune | recipe.Distill)]
    distilling = [stage.distill for stage in left if stage.distill is not None]
    found = {
        "the model": size,
        "stages": round(_KEPT * size) * sum(stage.evaluate is None for stage in left),
        "a checkpoint": round((_CHECKPOINT + any(stage.patience for stage in training)) * size) * bool(training),
        "the teacher's answers": max((_answers(job, stage) for stage in distilling), default=0),
    }
    return {name: count for name, count in found.items() if count}


def _words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def check_space(job: Job) -> None:
    """Raise OSError unless the disk has room for a run, with what it needs and what there is."""
    parts = needed(job, stages_kept(job.work))
    there: Path = job.work.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if sum(parts.values()) > free:
        told = ", ".join(f"{name} {_words(count)}" for name, count in parts.items())
        raise OSError(
            f"{job.work.parent} needs about {_words(sum(parts.values()))} ({told}), and its disk has {_words(free)} "
            "free; make room, or choose another folder"
        )
