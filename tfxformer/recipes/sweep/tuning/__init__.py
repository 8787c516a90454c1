"""The search for training settings: a recipe says what may be turned, and held-out texts say which setting is best."""

from tfxformer.backend import needs_keras

needs_keras("A search", "yaml")

from tfxformer.recipes.sweep.tuning.reading import read_recipe
from tfxformer.recipes.sweep.tuning.recipe import Recipe
from tfxformer.recipes.sweep.tuning.searching import run, run_recipe

__all__ = ["Recipe", "read_recipe", "run", "run_recipe"]
