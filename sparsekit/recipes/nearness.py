"""How near a model on its way through a recipe still is to its dense teacher."""

from __future__ import annotations

from typing import Any

from sparsekit.fidelity import fidelity
from sparsekit.recipes.job import Job
from sparsekit.recipes.keeping import dense_model
from sparsekit.recipes.tasks import Named

#: Texts whose outputs are compared, as many as one or two batches hold: of a language model they take long.
_TEXTS = 16


def nearness(job: Job) -> dict[str, Any]:
    """What a stage reports of the model's outputs beside the dense model's; nothing before it was made smaller."""
    if job.dense_after is None:
        return {}
    found = fidelity(Named(job.model), Named(dense_model(job)), job.sample(_TEXTS))
    far = {"outputs": "moved FAR from the dense model's: train it, or make it less small"} if found.far else {}
    return {"cosine_to_dense": found.cosine, **far}
