"""Smaller models of the same weights: fewer heads, neurons, layers, rows of the vocabulary."""
