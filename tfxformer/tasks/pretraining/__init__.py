"""Tasks that models are trained from scratch with."""
