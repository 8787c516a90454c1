"""Keras models to verified LiteRT (.tflite) files, and those files from Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tfxformer.extras import needs

if TYPE_CHECKING:  # what editors and type checkers complete; at run time a name is imported when it is first used
    from tfxformer.export.errors import ExportError as ExportError
    from tfxformer.export.litert import ExportReport as ExportReport
    from tfxformer.export.litert import export_litert as export_litert
    from tfxformer.export.litertlm import bundle_litertlm as bundle_litertlm
    from tfxformer.export.quantization.accuracy_gate import AccuracyGate as AccuracyGate
    from tfxformer.runtime import Inspection as Inspection
    from tfxformer.runtime import LiteRTGenerator as LiteRTGenerator
    from tfxformer.runtime import LiteRTModel as LiteRTModel
    from tfxformer.runtime import inspect as inspect

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
        if _NAMES[name].startswith("export."):
            needs(f"tfxformer.export.{name}", "keras", "tensorflow")
        return getattr(importlib.import_module(f"tfxformer.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfxformer.export' has no attribute {name!r}")
