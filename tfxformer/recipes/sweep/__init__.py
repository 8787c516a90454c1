"""The compression sweep: a recipe names ways to make a model small; each is gone, measured, and the best is chosen."""

from tfxformer.backend import needs_keras

needs_keras("A sweep", "yaml")

from tfxformer.recipes.sweep.reading import read_recipe
from tfxformer.recipes.sweep.recipe import Recipe
from tfxformer.recipes.sweep.running import run, run_recipe

__all__ = ["Recipe", "read_recipe", "run", "run_recipe"]
