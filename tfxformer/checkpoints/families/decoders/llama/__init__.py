"""Pages of decoders that are written as Llama is: RMS norms, rotary positions, gated feed-forward halves."""
