"""Layers that a layer is made of: given to it, and found again in files."""

from __future__ import annotations

import keras

# What blocks were called in files of version 0.5.0, after their classes.
OLDER_NAMES = ("encoder_block", "decoder_block")


def given(name: str, value, *kinds: type):
    """Arguments as a dict of their own, or a layer of one of the kinds."""
    if isinstance(value, dict):
        return dict(value)
    if not isinstance(value, kinds):
        known = " or a ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} is a dict of arguments or a {known}, not {value!r:.80}.")
    return value


def serialized(value):
    """What was given, for a config: a layer as Keras writes it, all else as it is."""
    return keras.saving.serialize_keras_object(value) if isinstance(value, keras.layers.Layer) else value


def deserialized(value):
    """The inverse of `serialized`."""
    is_layer = isinstance(value, dict) and "class_name" in value
    return keras.saving.deserialize_keras_object(value) if is_layer else value


def read_older_names(store) -> None:
    """Lets Keras find the weights of blocks in files of version 0.5.0, which had two classes of them.

    Keras names what it saves by its class, with a number: "layers/encoder_block_3".

    Args:
        store: of `load_own_variables`, which Keras asks for the group of each layer.
    """
    file, find = getattr(store, "h5_file", None), getattr(store, "get", None)
    if file is None or getattr(find, "reads_older_names", False):
        return

    def get(path):
        names = (path.replace("transformer_block", name) for name in ("transformer_block", *OLDER_NAMES))
        return find(next((name for name in names if name in file), path))

    get.reads_older_names = True
    store.get = get
