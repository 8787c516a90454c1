"""The fast training path: formulas with gradients of their own, dropout, recomputing."""
