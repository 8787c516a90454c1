"""Encoders with a learned row for each position, added to the tokens."""
