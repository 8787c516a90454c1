"""Encoders whose attention compares distances: with scores or embeddings of their own."""
