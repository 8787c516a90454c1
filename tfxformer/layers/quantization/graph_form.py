"""How a graph writes what several formulas can express: same layers, same variables, another graph."""

from __future__ import annotations

import contextlib
import contextvars
from dataclasses import asdict, dataclass

import keras

from tfxformer.layers.quantization.equalization import Equalization


@keras.saving.register_keras_serializable("tfxformer")
@dataclass(frozen=True)
class GraphForm:
    """The writing of a graph, chosen where it is built; the weights and (up to rounding) the result stay.

    Attributes:
        mask_value: float, added to the attention score of a padded position. Static int8 shares one scale
            over scores and mask, so export chooses a small one; training wants one that always wins.
        layer_norm: "fused" is Keras' own; "product" writes the variance as a product of two differences,
            which LiteRT does not fold into SQUARED_DIFFERENCE (an op without int8 and int16 kernels);
            "inner_product" as one matrix product per token, whose squares int8 never stores.
        embedding: "take" is Keras' own lookup, "gather" the raw one without the wrap of negative ids.
        equalization: Equalization or None, how one model's products keep their outliers out of int8's way.
        channels_apart: pairs of a norm's path and the channels of its input that are computed apart from the others,
            with scales of their own in int8; see `layers.outlier_channels`.

    Raises ValueError for a way of writing that is unknown.
    """

    mask_value: float = -1e9
    layer_norm: str = "fused"
    embedding: str = "take"
    equalization: Equalization | None = None
    channels_apart: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self):
        for name, known in (("layer_norm", ("fused", "product", "inner_product")), ("embedding", ("take", "gather"))):
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}.")

    def get_config(self) -> dict:
        """The fields, for Keras: the file of a model that continues a backbone's graph holds them."""
        return asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "channels_apart": tuple(config["channels_apart"])})


DEFAULT = GraphForm()  # what every model is written as, unless export asks for another form
# What computes in int8 throughout. One scale covers scores and mask: the mask must not be far larger than the scores.
STATIC_INT8 = GraphForm(mask_value=-30.0, layer_norm="inner_product", embedding="gather")

_in_force = contextvars.ContextVar("graph_form", default=None)


@contextlib.contextmanager
def written(graph_form: GraphForm | None):
    """Inside the block, layers of ours without a form of their own are written in this one, in any model."""
    token = _in_force.set(graph_form)
    try:
        yield
    finally:
        _in_force.reset(token)


def writing_in_force() -> GraphForm | None:
    """The form of the innermost `written` block; None outside of one."""
    return _in_force.get()


class WrittenLayer:
    """Put in front of a Keras layer whose call takes `graph_form`.

    Functional models of version 0.5.0 that continue a backbone's graph call it `numerics`.
    """

    def __call__(self, *args, **kwargs):
        if "numerics" in kwargs:
            kwargs["graph_form"] = kwargs.pop("numerics")
        return super().__call__(*args, **kwargs)


def call_written(layer, *inputs, graph_form: GraphForm, **arguments):
    """A layer's call, written as `graph_form` says where it is one of ours; another takes the inputs alone."""
    if isinstance(layer, WrittenLayer):
        return layer(*inputs, graph_form=graph_form, **arguments)
    return layer(*inputs)


def chosen(graph_form: GraphForm) -> GraphForm:
    """The form that a layer was given; where it is the default, the one in force."""
    return _in_force.get() or graph_form if graph_form == DEFAULT else graph_form
