"""Attention: masks, positions, rotary embeddings, the cache."""
