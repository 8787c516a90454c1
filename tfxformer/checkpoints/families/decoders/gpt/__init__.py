"""Pages of decoders that are written as GPT-2 is: layer norms, biases, plain feed-forward halves."""
