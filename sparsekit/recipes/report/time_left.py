"""How long a run still takes, by what its finished stages took."""

from __future__ import annotations

from sparsekit.recipes.job import Job


def seconds_left(job: Job) -> float | None:
    """Seconds that the stages ahead and the scores at the end take, about; None where no finished stage tells."""
    passes = [stage.settings.forward_passes(job) for stage in job.recipe.stages]
    finished = len(job.rows)
    known, seconds = sum(passes[:finished]), sum(row["seconds"] for row in job.rows)
    ahead = sum(passes[finished:]) + 2 * job.test_batches  # of the model and of the dense one
    return seconds * ahead / known if known else None
