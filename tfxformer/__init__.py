"""From a Transformer checkpoint to a phone, in Keras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tfxformer.registered import announce

if TYPE_CHECKING:  # what editors and type checkers complete; at run time a name is imported when it is first used
    from tfxformer import checkpoints as checkpoints
    from tfxformer import compression as compression
    from tfxformer import data as data
    from tfxformer import export as export
    from tfxformer import generation as generation
    from tfxformer import layers as layers
    from tfxformer import models as models
    from tfxformer import runtime as runtime
    from tfxformer import samples as samples
    from tfxformer import tasks as tasks
    from tfxformer import text as text
    from tfxformer import training as training
    from tfxformer.checkpoints import from_pretrained as from_pretrained
    from tfxformer.models import StackConfig as StackConfig
    from tfxformer.models import TransformerConfig as TransformerConfig
    from tfxformer.models import build as build

__version__ = "0.15.0"

_SUBMODULES = (
    "checkpoints", "compression", "data", "export", "generation", "layers", "models", "runtime", "samples", "tasks",
    "text", "training",
)  # fmt: skip
_NAMES = {
    "from_pretrained": "checkpoints",
    "build": "models",
    "TransformerConfig": "models",
    "StackConfig": "models",
}

__all__ = sorted([*_SUBMODULES, *_NAMES])


def __getattr__(name: str):
    # Importing the package must stay cheap: a name is imported when it is first used.
    if name in _SUBMODULES:
        return importlib.import_module(f"tfxformer.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfxformer.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfxformer' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])


announce()  # so that Keras opens files with our classes after `import tfxformer` alone
