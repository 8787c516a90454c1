"""Whole stories made of the package's parts; the demo and the applications are made of these."""

from tfxformer.extras import needs

needs("tfxformer.recipes", "keras", "tensorflow", "yaml")
