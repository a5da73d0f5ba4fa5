"""Compress a model by a recipe: fine-tune, prune, distill, convert and evaluate in one run."""

from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.run import compress, evaluate
from sparsekit.recipes.yaml_file import make_recipe, read_recipe

__all__ = ["Recipe", "compress", "evaluate", "make_recipe", "read_recipe"]
