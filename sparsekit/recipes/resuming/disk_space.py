"""Check that the disk has enough space for a run."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from sparsekit.recipes.job import Job
from sparsekit.recipes.resuming.finished_stages import count_finished
from sparsekit.recipes.stages.distill import Distill
from sparsekit.recipes.stages.training import Training

#: Size of a checkpoint relative to the model: weights, masks as bytes, and AdamW's two moments.
_CHECKPOINT = 3.25
#: Size of a finished stage relative to the model: the model, and masks with the weights under them.
_FINISHED = 2.25
_HALF = 2  # bytes per element of the teacher's outputs


def _bytes_of(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def _teacher_outputs(job: Job, settings: Distill) -> int:
    """Estimated bytes of the teacher's outputs: hidden states, attention maps, top logits of a language model."""
    config = job.model.config
    found = 0
    for batch in job.train if settings.cache else []:
        texts, tokens = batch["input_ids"].shape
        numbers = config.num_hidden_layers * (config.hidden_size * bool(settings.hidden_weight))
        numbers += config.num_hidden_layers * config.num_attention_heads * tokens * bool(settings.attention_weight)
        logits = settings.top_k if job.recipe.task == "language" and settings.soft_weight else 0
        found += texts * tokens * (numbers * _HALF + logits * (_HALF + 4))
    return found


def needed(job: Job, finished: int) -> dict[str, int]:
    """Bytes that a run will write, by purpose.

    Args:
        job: the job, before its stages run.
        finished: number of stages that are already finished and on disk.
    """
    size = _bytes_of(job.model)
    left = [stage.settings for stage in job.recipe.stages[finished:]]
    training = [settings for settings in left if isinstance(settings, Training)]
    distilling = [settings for settings in left if isinstance(settings, Distill)]
    found = {
        "the model": size,
        "stages": round(_FINISHED * size) * sum(settings.changes_model for settings in left),
        "a checkpoint": round((_CHECKPOINT + any(settings.patience for settings in training)) * size) * bool(training),
        "the teacher's outputs": max((_teacher_outputs(job, settings) for settings in distilling), default=0),
    }
    return {name: count for name, count in found.items() if count}


def _words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def check_space(job: Job) -> None:
    """Raise OSError, with the space needed and free, unless the disk has enough space for a run."""
    parts = needed(job, count_finished(job.work))
    there: Path = job.work.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if sum(parts.values()) > free:
        told = ", ".join(f"{name} {_words(count)}" for name, count in parts.items())
        raise OSError(
            f"{job.out} needs about {_words(sum(parts.values()))} ({told}), and its disk has {_words(free)} "
            "free; make space, or choose another folder"
        )
