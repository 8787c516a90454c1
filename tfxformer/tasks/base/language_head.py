"""From what a stack says to logits over the vocabulary: what tasks that write texts have on top."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfxformer.layers import DEFAULT, Dense, GraphForm
from tfxformer.layers.quantization.equalization import equalized
from tfxformer.layers.quantization.graph_form import chosen
from tfxformer.models.heads import LogitsBias
from tfxformer.models.parts import initializer
from tfxformer.training.compiling.losses_and_metrics import is_token_cross_entropy


def language_heads(backbone) -> dict:
    """The layers of the head: none where the token table is read in reverse, else a Dense layer ("head")."""
    config, heads = backbone.config, {}
    if not config.heads.tied:
        heads["head"] = Dense(
            config.vocabulary_size,
            use_bias=False,
            kernel_initializer=initializer(config),
            dtype=backbone.dtype_policy,
            name="language_model_head",
        )
    if config.heads.logits_bias:
        heads["bias"] = LogitsBias(name="final_logits_bias")
    return heads


def language_logits(backbone, heads: dict, x, graph_form: GraphForm = DEFAULT):
    """[B, S, table width] -> float32 [B, S, V], by the head or in its absence by the token table, scaled and capped."""
    own, described = heads.get("head"), backbone.config.heads
    scale = described.logit_scale
    if own is None:
        logits = ops.cast(backbone.token_embedding(x, reverse=True, scale=scale, graph_form=graph_form), "float32")
    else:
        logits = ops.cast(equalized(x, (own,), chosen(graph_form))(own), "float32")
        logits = logits if scale == 1.0 else logits * scale
    if "bias" in heads:
        logits = heads["bias"](logits)
    cap = described.logit_soft_cap
    return logits if cap is None else cap * ops.tanh(logits / cap)


def step_logits(backbone, heads: dict, outputs: dict, logits: str | None, graph_form: GraphForm):
    """(logits, new cache) of a backbone's step: those of the "last" token, of "all", or None."""
    if logits is None:
        return None, outputs["cache"]
    x = outputs["sequence_output"]
    x = x[:, -1:] if logits == "last" else x
    return language_logits(backbone, heads, x, graph_form), outputs["cache"]


def token_scorer(task) -> keras.Model:
    """A model on the layers of a task from a batch to the loss of each token [B, S]: logits would be gigabytes."""
    if "_scoring" not in task.__dict__:
        inputs, targets = task.backbone.make_inputs(), keras.Input((None,), dtype="int32", name="targets")
        losses = ops.sparse_categorical_crossentropy(targets, task(inputs), from_logits=True)
        # Not an attribute: Keras would track the task as a part of itself.
        task.__dict__["_scoring"] = keras.Model({**inputs, "targets": targets}, losses)
    return task.__dict__["_scoring"]


def of_all_tokens(results: dict, loss) -> dict:
    """What `evaluate` found, its loss the mean over all tokens: Keras averages batches, of fewer tokens or of more."""
    if is_token_cross_entropy(loss) and "perplexity" in results:
        return {**results, "loss": math.log(results["perplexity"])}
    return results
