"""Running and reading LiteRT files, without TensorFlow and Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfxformer.runtime.inspection import Inspection, inspect
from tfxformer.runtime.litert_generator import LiteRTGenerator
from tfxformer.runtime.litert_model import LiteRTModel

if TYPE_CHECKING:  # what editors and type checkers complete; at run time they are imported when first used
    from tfxformer.runtime.apps.project import write_app as write_app
    from tfxformer.runtime.page.write import PageReport as PageReport
    from tfxformer.runtime.page.write import write_page as write_page

__all__ = ["Inspection", "LiteRTGenerator", "LiteRTModel", "PageReport", "inspect", "write_app", "write_page"]


def __getattr__(name: str):
    if name == "write_app":
        from tfxformer.runtime.apps.project import write_app

        return write_app
    if name in ("PageReport", "write_page"):
        from tfxformer.runtime.page import write

        return getattr(write, name)
    raise AttributeError(f"module 'tfxformer.runtime' has no attribute {name!r}")
