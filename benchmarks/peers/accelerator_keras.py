"""The Keras peers of `accelerator.py`, on JAX: ours and KerasHub's, each as `fit` and `generate` run it."""

from __future__ import annotations

import numpy as np

from peers.accelerator_cells import (
    CLIP,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Cell,
    class_labels,
    hidden_places,
    token_rows,
)

POLICY = "mixed_bfloat16"


def peak_memory() -> float | None:
    """The most GiB that the first device has held; None where JAX does not say."""
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return None if peak is None else peak / 2**30


class Fitting:
    """One measurement of training: a `fit` of some batches, an epoch of them.

    Args:
        model: a compiled Keras model.
        x, y: its arrays.
        batch: int.
    """

    def __init__(self, model, x, y, batch: int):
        self.model, self.data, self.losses = model, {"x": x, "y": y, "batch_size": batch}, []

    def __call__(self):
        history = self.model.fit(**self.data, epochs=1, shuffle=False, verbose=0)
        self.losses.append(float(history.history["loss"][0]))
        if not np.isfinite(self.losses[-1]):
            raise FloatingPointError(f"The loss became {self.losses[-1]}.")

    def facts(self) -> dict:
        return {"losses": self.losses, "peak_gib": peak_memory()}


class Decoding:
    """One measurement of decoding: as many new tokens as the prompts have."""

    def __init__(self, generate, cell: Cell):
        self.generate, self.cell = generate, cell

    def __call__(self):
        count = np.asarray(self.generate()).shape[-1]
        if count != self.cell.length:
            raise AssertionError(f"{count} tokens, not {self.cell.length}.")

    def facts(self) -> dict:
        return {"peak_gib": peak_memory()}


def _compile(model, **arguments):
    import keras

    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=True, **arguments)
    return model


# ---- ours -------------------------------------------------------------------------------------------------------


def tfxformer(cell: Cell):
    """Ours with GPT-2's vocabulary filled up to a multiple of 64, as nanoGPT has it."""
    return _ours(cell, cell.filled_vocabulary if cell.kind in ("causal", "decoding") else cell.vocabulary)


def tfxformer_as_stored(cell: Cell):
    """Ours with the vocabulary of the released weights."""
    return _ours(cell, cell.vocabulary)


def _ours(cell: Cell, vocabulary: int):
    import tfxformer
    from tfxformer import tasks

    stack = "decoder" if cell.kind in ("causal", "decoding") else "encoder"
    changes = {
        "num_layers": cell.layers,
        "hidden_size": cell.hidden,
        "attention__heads": cell.heads,
        "feed_forward__size": 4 * cell.hidden,
        "dropout": cell.dropout,
        "attention_dropout": cell.dropout,
    }
    preset = "gpt2" if stack == "decoder" else "bert-base"
    changes = {f"{stack}__{name}": value for name, value in changes.items()}
    backbone = tfxformer.build(preset, dtype=POLICY, vocabulary_size=vocabulary, padding_id=0, **changes)
    ids = token_rows(cell)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    if cell.kind == "causal":
        given = {name: inputs[name] for name in ("token_ids", "padding_mask")}
        return Fitting(_compile(tasks.CausalLM(backbone)), given, np.roll(ids, -1, 1), cell.batch)
    if cell.kind == "masked":
        places = hidden_places(cell)
        labels = np.take_along_axis(ids, places, 1)
        return Fitting(_compile(tasks.MaskedLM(backbone)), {**inputs, "masked_positions": places}, labels, cell.batch)
    if cell.kind == "classes":
        model = _compile(tasks.TextClassifier(backbone, labels=["0", "1"]))
        return Fitting(model, inputs, class_labels(cell), cell.batch)
    return _our_decoding(tasks.CausalLM(backbone), cell, ids)


def _our_decoding(model, cell: Cell, ids):
    from tfxformer import generation

    prompts = ids.tolist()
    return Decoding(lambda: generation.generate(model, prompts, cell.length, stop_ids=()), cell)


# ---- KerasHub ---------------------------------------------------------------------------------------------------


def keras_hub(cell: Cell):
    """KerasHub's tasks without their preprocessors."""
    import keras_hub

    sizes = {
        "vocabulary_size": cell.vocabulary,
        "num_layers": cell.layers,
        "num_heads": cell.heads,
        "hidden_dim": cell.hidden,
        "intermediate_dim": 4 * cell.hidden,
        "dropout": cell.dropout,
        "dtype": POLICY,
    }
    ids = token_rows(cell)
    ones = np.ones_like(ids)
    if cell.kind in ("causal", "decoding"):
        backbone = keras_hub.models.GPT2Backbone(max_sequence_length=1024, **sizes)
        model = _compile(keras_hub.models.GPT2CausalLM(backbone, preprocessor=None))
        if cell.kind == "decoding":
            return _hub_decoding(model, cell, ids)
        return Fitting(model, {"token_ids": ids, "padding_mask": ones}, np.roll(ids, -1, 1), cell.batch)
    backbone = keras_hub.models.BertBackbone(max_sequence_length=512, **sizes)
    inputs = {"token_ids": ids, "padding_mask": ones, "segment_ids": np.zeros_like(ids)}
    if cell.kind == "masked":
        places = hidden_places(cell)
        model = _compile(keras_hub.models.BertMaskedLM(backbone, preprocessor=None))
        return Fitting(model, {**inputs, "mask_positions": places}, np.take_along_axis(ids, places, 1), cell.batch)
    model = keras_hub.models.BertTextClassifier(backbone, 2, preprocessor=None, dropout=cell.dropout)
    return Fitting(_compile(model), inputs, class_labels(cell), cell.batch)


def _hub_decoding(model, cell: Cell, ids):
    whole = np.pad(ids, ((0, 0), (0, cell.length)))
    mask = np.pad(np.ones_like(ids), ((0, 0), (0, cell.length)))
    inputs = {"token_ids": whole, "padding_mask": mask}
    return Decoding(lambda: model.generate(inputs, stop_token_ids=None)["token_ids"][:, cell.length :], cell)
