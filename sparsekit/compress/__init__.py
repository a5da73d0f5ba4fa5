"""Compress a model as a recipe says: fine-tune, prune, distil, convert, evaluate, in one run."""

from sparsekit.compress.recipe import Recipe
from sparsekit.compress.recipe_file import make_recipe, read_recipe
from sparsekit.compress.run import compress, evaluate

__all__ = ["Recipe", "compress", "evaluate", "make_recipe", "read_recipe"]
