"""Which layers int8 harms most: each alone rounds what it computes, in Keras, and the outputs are compared."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from keras import ops

from tfxformer.layers import observing
from tfxformer.layers.fake_quantization import rounding
from tfxformer.layers.numerics import Numerics


class _OneLayer:
    """A `FakeQuantization` of which one layer's numbers are rounded; all layers are written as if they were."""

    def __init__(self, quantization, layer):
        self._quantization, self._layer = quantization, layer
        self.numerics = quantization.numerics

    def concerns(self, layer) -> bool:
        return self._quantization.concerns(layer)

    def rounded(self, x, layer, name: str):
        return self._quantization.rounded(x, layer, name) if layer is self._layer else x

    def kernel(self, layer):
        return self._quantization.kernel(layer) if layer is self._layer else layer.kernel


def sensitivities(model, batches: Iterable[dict], numerics: Numerics) -> dict[str, float]:
    """The relative L2 error of the outputs when one layer rounds, by its path, the largest first.

    Args:
        model: a task on an encoder, or an `Encoder`.
        batches: dicts of int32 [B, S], which give the ranges too.
        numerics: Numerics, as the file is written.
    """
    batches = list(batches)
    whole = [{name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}]
    quantization = observing.observe_ranges(model, whole, numerics)
    wanted = _outputs(model, whole[0], _OneLayer(quantization, None))
    errors = {}
    for layer in quantization.layers:
        found = _outputs(model, whole[0], _OneLayer(quantization, layer))
        errors[layer.path] = float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))
    return dict(sorted(errors.items(), key=lambda pair: -pair[1]))


def worst_layers(model, batches: Iterable[dict], numerics: Numerics, count: int) -> tuple[str, ...]:
    """The paths of the `count` layers that are most sensitive."""
    return tuple(sensitivities(model, batches, numerics))[:count]


def _outputs(model, batch: dict, quantization) -> np.ndarray:
    with rounding(quantization):
        outputs = model.forward(
            {name: ops.convert_to_tensor(ids) for name, ids in batch.items()}, numerics=quantization.numerics
        )
    if isinstance(outputs, dict):  # an Encoder's
        outputs = outputs["sequence_output"]
    return ops.convert_to_numpy(outputs)
