"""Texts as vectors: what embeds them, how it learns, and how they are compared and searched."""
