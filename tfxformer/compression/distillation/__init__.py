"""A student learns from a teacher's logits, hidden states and attention."""
