"""Which parts of an encoder int8 harms most: each alone rounds what it computes, in Keras, and outputs are compared.

Parts are whole blocks, norms, heads: a float layer whose neighbours compute in int8 hands them rounded numbers again.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from keras import ops, tree

from tfxformer.layers.quantization import observing
from tfxformer.layers.quantization.fake_quantization import rounding
from tfxformer.layers.quantization.graph_form import GraphForm, written


class _OnePart:
    """A `FakeQuantization` of which one part's numbers are rounded; all layers are written as if they were."""

    def __init__(self, quantization, part):
        self._quantization, self._part = quantization, part
        self.graph_form = quantization.graph_form

    def concerns(self, layer) -> bool:
        return self._quantization.concerns(layer)

    def rounded(self, x, layer, name: str):
        return self._quantization.rounded(x, layer, name) if part_of(layer) == self._part else x

    def kernel(self, layer):
        return self._quantization.kernel(layer) if part_of(layer) == self._part else layer.kernel


def part_of(layer) -> str:
    """The path of the part of a model that a layer is in: a block, a norm, the head."""
    return layer.path.split("/")[0]


def sensitivities(model, batches: Iterable[dict], graph_form: GraphForm) -> dict[str, float]:
    """The relative L2 error of the outputs when one part rounds, by its path, the largest first.

    Args:
        model: a task on an encoder, an `Encoder`, or a model of anybody's around them.
        batches: what it is called with, such as dicts of int32 [B, S]; they give the ranges too.
        graph_form: GraphForm, as the file is written.
    """
    batches = list(batches)
    whole = tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
    quantization = observing.observe_ranges(model, [whole], graph_form)
    wanted, errors = _outputs(model, whole, _OnePart(quantization, None)), {}
    for part in dict.fromkeys(map(part_of, quantization.layers)):
        found = _outputs(model, whole, _OnePart(quantization, part))
        errors[part] = float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))
    return dict(sorted(errors.items(), key=lambda pair: -pair[1]))


def worst_parts(model, batches: Iterable[dict], graph_form: GraphForm, count: int) -> tuple[str, ...]:
    """The paths of the `count` parts that are most sensitive."""
    return tuple(sensitivities(model, batches, graph_form))[:count]


def _outputs(model, batch, quantization) -> np.ndarray:
    with rounding(quantization), written(quantization.graph_form):
        outputs = model(tree.map_structure(ops.convert_to_tensor, batch))
    if isinstance(outputs, dict):  # an Encoder's
        outputs = outputs.get("sequence_output", outputs)
    return np.concatenate([ops.convert_to_numpy(one).reshape(-1) for one in tree.flatten(outputs)])
