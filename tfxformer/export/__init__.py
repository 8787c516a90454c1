"""Keras models to verified LiteRT (.tflite) files, and those files from Python."""

from __future__ import annotations

import importlib

_NAMES = {
    "AccuracyGate": "export.quantization.accuracy_gate",
    "ExportError": "export.errors",
    "ExportReport": "export.litert",
    "bundle_litertlm": "export.litertlm",
    "export_litert": "export.litert",
    "Inspection": "runtime.inspection",
    "inspect": "runtime.inspection",
    "LiteRTGenerator": "runtime.litert_generator",
    "LiteRTModel": "runtime.litert_model",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    # Running or inspecting a file must not import Keras and TensorFlow, which exporting needs.
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfxformer.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfxformer.export' has no attribute {name!r}")
