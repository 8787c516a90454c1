"""Pages of families with an encoder and a decoder."""
