"""One train step, right under every strategy: gradients, accumulation, hooks."""
