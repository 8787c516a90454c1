"""Which weights a model has, how sparse they are, and which matter."""
