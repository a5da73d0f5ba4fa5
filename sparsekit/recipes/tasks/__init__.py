"""Tasks of models: how to load one, make batches, fine-tune, distill and score it."""

from sparsekit.recipes.tasks.classification import Classification
from sparsekit.recipes.tasks.embedding import Embedding
from sparsekit.recipes.tasks.language import Language
from sparsekit.recipes.tasks.task import Task

__all__ = ["TASKS", "Task"]

#: Tasks by name.
TASKS: dict[str, Task] = {"classification": Classification(), "embedding": Embedding(), "language": Language()}
