"""What models are for: how to load one, make batches, fine-tune, follow a teacher, and score it."""

from sparsekit.recipes.tasks.classification import Classification
from sparsekit.recipes.tasks.embedding import Embedding
from sparsekit.recipes.tasks.language import Language
from sparsekit.recipes.tasks.task import Task

__all__ = ["TASKS", "Task"]

#: Tasks by name.
TASKS: dict[str, Task] = {"classification": Classification(), "embedding": Embedding(), "language": Language()}
