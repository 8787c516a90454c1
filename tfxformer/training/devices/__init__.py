"""Strategies over devices, and workers that are lost."""
