"""How far a stage moved the model's outputs from the dense model's."""

from __future__ import annotations

from typing import Any

from sparsekit.fidelity import fidelity
from sparsekit.recipes.job import Job
from sparsekit.recipes.resuming.finished_stages import dense_model
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

#: Texts whose outputs are compared: one batch, since more would take too long with a language model.
_TEXTS = 16


def fidelity_to_dense(job: Job) -> dict[str, Any]:
    """Report entries that compare the model's outputs with the dense model's; empty before any compression."""
    if job.dense_after is None:
        return {}
    found = fidelity(NamedOutputs(job.model), NamedOutputs(dense_model(job)), job.sample(_TEXTS))
    far = {"outputs": "moved FAR from the dense model's: train it, or compress it less"} if found.far else {}
    return {"cosine_to_dense": found.cosine, **far}
