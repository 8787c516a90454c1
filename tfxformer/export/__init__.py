"""Keras models to verified LiteRT (.tflite) files, and those files from Python."""

from __future__ import annotations

import importlib

_NAMES = {
    "AccuracyGate": "accuracy_gate",
    "ExportError": "errors",
    "ExportReport": "litert",
    "bundle_litertlm": "litertlm",
    "export_litert": "litert",
    "Inspection": "inspection",
    "inspect": "inspection",
    "LiteRTGenerator": "generator",
    "LiteRTModel": "litert_model",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    # Running or inspecting a file must not import Keras and TensorFlow, which exporting needs.
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfxformer.export.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfxformer.export' has no attribute {name!r}")
