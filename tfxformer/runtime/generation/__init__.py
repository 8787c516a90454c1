"""How a file writes: its calls, the buffers of its texts, samplers, and beams."""
