"""How near a model on its way through a recipe still is to its dense teacher."""

from __future__ import annotations

from typing import Any

from sparsekit.compress.job import Job
from sparsekit.compress.tasks import Named
from sparsekit.fidelity import fidelity

#: Texts whose outputs are compared, as many as one or two batches hold: of a language model they take long.
_TEXTS = 16


def nearness(job: Job) -> dict[str, Any]:
    """What a stage reports of the model's outputs beside the teacher's; nothing where there is no teacher yet."""
    if job.teacher is None:
        return {}
    found = fidelity(Named(job.model), Named(job.teacher), job.sample(_TEXTS))
    far = {"outputs": "moved FAR from the dense model's: train it, or make it less small"} if found.far else {}
    return {"cosine_to_dense": found.cosine, **far}
