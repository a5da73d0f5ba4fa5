"""Compress a model as a recipe says: fine-tune, prune, distill, convert, evaluate, in one run."""

from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.recipe_file import make_recipe, read_recipe
from sparsekit.recipes.run import compress, evaluate

__all__ = ["Recipe", "compress", "evaluate", "make_recipe", "read_recipe"]
