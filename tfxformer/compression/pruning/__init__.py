"""Zeros and shared values: pruning and clustering during `fit`, held by constraints."""
