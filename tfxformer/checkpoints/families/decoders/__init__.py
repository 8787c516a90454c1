"""Families of decoders, a page each."""
