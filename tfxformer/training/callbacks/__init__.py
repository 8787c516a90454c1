"""Callbacks: what is written down, drawn, watched and put back during `fit`."""
