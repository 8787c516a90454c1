"""Whole stories made of the package's parts; the demo and the applications are made of these."""
