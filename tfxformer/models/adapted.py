"""Adapters as part of a model: what is trained beside them, and how a `.keras` file brings them back."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from tfxformer.layers.adapters.base import LayerAdapter, adapted_layers, attach
from tfxformer.layers.adapters.bottleneck import Bottleneck
from tfxformer.layers.adapters.low_rank import LowRank, SingularValues
from tfxformer.layers.adapters.prefix import Prefix
from tfxformer.layers.adapters.prompt import Prompt
from tfxformer.layers.adapters.scaling import Scaling
from tfxformer.layers.attention.position_scores import RelativeScores
from tfxformer.layers.attention.positions import PositionEmbedding
from tfxformer.layers.attention.rotary import RotaryPositions

CONFIG_KEY = "adapters"
KINDS = {cls.kind: cls for cls in (LowRank, SingularValues, Scaling, Bottleneck, Prompt, Prefix)}
_NAME = "_name_of_adapter"  # of a model whose adapter has no layers of its own, only variables that it trains


def make_adapter(arguments: dict, **others) -> LayerAdapter:
    """A new adapter, not built, of what `LayerAdapter.arguments` says; `others` are arguments that it does not."""
    arguments = dict(arguments)
    return KINDS[arguments.pop("kind")](**arguments, **others)


def name_adapter(model: keras.Model, name: str | None) -> None:
    """Notes the adapter that is active in a model, of which no layer could tell; None notes that there is none."""
    model.__dict__[_NAME] = name


def adapter_name(model: keras.Model) -> str | None:
    """What `name_adapter` noted."""
    return model.__dict__.get(_NAME)


def shift_positions(model: keras.Model) -> None:
    """Lets texts begin behind the prefix, where the adapter in a model is one; those of an encoder beside it stay."""
    adapters = [layer.adapter for layer in adapted_layers(model)]
    length = max((one.length for one in adapters if isinstance(one, Prefix)), default=0)
    for layer in model._flatten_layers():
        if isinstance(layer, (PositionEmbedding, RotaryPositions, RelativeScores)) and not _of_encoder(layer):
            layer.shift = length


def _of_encoder(layer: keras.layers.Layer) -> bool:
    return layer.name.startswith("encoder_")  # as `parts.named` has it, where there are two stacks


def train_only(model: keras.Model, variables: Iterable[keras.Variable]) -> None:
    """Freezes every variable of a model but these and its adapters'."""
    kept = {id(variable) for variable in variables}
    kept |= {id(variable) for layer in adapted_layers(model) for variable in layer.adapter._trainable_variables}
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            variable.trainable = id(variable) in kept


def train_all(model: keras.Model) -> None:
    """Takes `train_only` back: variables are trained again where their layers are."""
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            variable.trainable = layer.trainable


def describe_adapters(model: keras.Model) -> dict:
    """What a model's config says of its adapters: {} without any, else {"adapters": ...}, for JSON."""
    layers, name = adapted_layers(model), adapter_name(model)
    if not layers and name is None:
        return {}
    of_adapters = {id(variable) for layer in layers for variable in layer.adapter.variables}
    adapters = {layer.path: layer.adapter.arguments() for layer in layers}
    trained = [variable.path for variable in model.trainable_variables if id(variable) not in of_adapters]
    return {CONFIG_KEY: {"layers": adapters, "trained": trained, "name": name}}


def collect_adapters(config: dict) -> dict | None:
    """Takes what `describe_adapters` wrote out of a model's config; None where it wrote nothing."""
    return config.pop(CONFIG_KEY, None)


def restore_adapters(model: keras.Model, described: dict | None) -> keras.Model:
    """Gives a new model the adapters that its config describes, their values still to be loaded; returns the model.

    Raises:
        ValueError: for a description that names a layer which the model does not have.
    """
    if described is None:
        return model
    layers = {layer.path: layer for layer in model._flatten_layers()}
    for path, arguments in described["layers"].items():
        if path not in layers:
            raise ValueError(f"The config has an adapter for {path!r}, a layer that {model.name!r} does not have.")
        if layers[path].adapter is None:  # a backbone inside brings its own
            attach(layers[path], make_adapter(arguments, dtype=layers[path].dtype_policy))
    trained = set(described["trained"])
    train_only(model, [variable for variable in model.variables if variable.path in trained])
    name_adapter(model, described["name"])
    shift_positions(model)
    return model
