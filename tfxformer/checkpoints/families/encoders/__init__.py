"""Families of encoders, a page each."""
