"""Callbacks of `fit` that change what is learned from few examples: other losses, more passes, weights held back."""
