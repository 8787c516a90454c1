"""From a Transformer checkpoint to a phone, in Keras."""

from __future__ import annotations

import importlib

from tfxformer.registered import announce

__version__ = "0.5.0"

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
