"""The error of an export that must not leave a file."""

from __future__ import annotations


class ExportError(RuntimeError):
    """A model could not be converted, or its file did not pass verification; no file was written."""
