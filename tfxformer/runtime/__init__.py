"""Running and reading LiteRT files, without TensorFlow and Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfxformer import lazy

if TYPE_CHECKING:  # what editors and type checkers complete; at run time they are imported when first used
    from tfxformer.runtime.apps.project import write_app as write_app
    from tfxformer.runtime.inspection import Inspection as Inspection
    from tfxformer.runtime.inspection import inspect as inspect
    from tfxformer.runtime.litert_generator import LiteRTGenerator as LiteRTGenerator
    from tfxformer.runtime.litert_model import LiteRTModel as LiteRTModel
    from tfxformer.runtime.page.write import PageReport as PageReport
    from tfxformer.runtime.page.write import write_page as write_page

_MODULES = {
    "write_app": "apps.project",
    "Inspection": "inspection",
    "inspect": "inspection",
    "LiteRTGenerator": "litert_generator",
    "LiteRTModel": "litert_model",
    "PageReport": "page.write",
    "write_page": "page.write",
}

__all__ = ["Inspection", "LiteRTGenerator", "LiteRTModel", "PageReport", "inspect", "write_app", "write_page"]

__getattr__ = lazy.names_of(__name__, _MODULES)
