"""What `compile` is given: losses and metrics by name, as they are meant for logits."""
