"""Estimate how long a run still takes from the duration of its finished stages."""

from __future__ import annotations

from sparsekit.recipes.job import Job


def seconds_left(job: Job) -> float | None:
    """Estimated seconds for the remaining stages and the final scores; None if no finished stage allows an estimate."""
    passes = [stage.settings.forward_passes(job) for stage in job.recipe.stages]
    finished = len(job.rows)
    known, seconds = sum(passes[:finished]), sum(row["seconds"] for row in job.rows)
    ahead = sum(passes[finished:]) + 2 * job.test_batches  # scores of the final and of the dense model
    return seconds * ahead / known if known else None
