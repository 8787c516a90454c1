"""Encoders whose queries and keys are turned by their positions."""
