"""What each token of a text reads of each other one: the probabilities of a model's attention.

Shape letters: L layers, N heads, S tokens, T tokens that are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from keras import ops

from tfxformer.figures import figure, save_figure

MOST_LABELS = 48  # tokens whose names can still be read beside a picture


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of a model in one text.

    Attributes:
        tokens: list of S str, as the vocabulary has them.
        weights: float32 [L, N, S, S]; weights[l, n, s] is what token s reads of each token in head n of layer l, and
            sums to one.
    """

    tokens: list[str]
    weights: np.ndarray

    def plot(self, path=None, *, layer: int = -1, head: int | None = None):
        """A picture of one layer: tokens that read as rows, those that are read as columns.

        Args:
            path: where to write it (.png, .svg); None writes nothing.
            layer: int, from 0 on; -1 for the last one.
            head: int, from 0 on; None for the mean of all heads.

        Returns:
            The figure of matplotlib, which a notebook shows.

        Raises:
            ValueError: for a layer or a head that the model does not have.
        """
        layers, heads = self.weights.shape[:2]
        for name, number, count in (("layer", layer, layers), ("head", 0 if head is None else head, heads)):
            if not -count <= number < count:
                raise ValueError(f"{name}={number}: the model has {count}, from 0 to {count - 1}.")
        layer, tokens = layer % layers, self.tokens
        shown = self.weights[layer].mean(0) if head is None else self.weights[layer, head]
        side = min(12.0, max(4.0, 0.28 * len(tokens) + 1.5))
        drawn, (panel,) = figure(1, (side + 1.0, side))
        image = panel.imshow(shown, cmap="Blues", vmin=0.0)
        panel.set_title(f"layer {layer}, {f'mean of {heads} heads' if head is None else f'head {head % heads}'}")
        panel.set(xlabel="token that is read", ylabel="token that reads")
        places = range(0, len(tokens), -(-len(tokens) // MOST_LABELS))
        names = [tokens[place].replace("$", r"\$") for place in places]
        panel.set_xticks(places, names, rotation=90)
        panel.set_yticks(places, names)
        drawn.colorbar(image, ax=panel, label="share of attention (each row sums to 1)", shrink=0.8)
        if path is not None:
            save_figure(drawn, path)
        return drawn


def attention_maps(task, text) -> AttentionMaps:
    """The attention of a task's model in a text; see `tasks.Task.attention_maps`."""
    layers_with_attention(task.backbone, "attention_maps")
    batch = task.encode([text])
    count = int((batch["padding_mask"][0] != 0).sum())
    weights = attention_weights(task.backbone, {name: batch[name][:1, :count] for name in task.backbone.input})
    if len({len(one) for one in weights}) > 1:
        raise ValueError(
            f"attention_maps: the layers have {', '.join(str(len(one)) for one in weights)} heads, and an array "
            "[layers, heads, S, S] wants as many in each."
        )
    names = task.tokenizer.vocabulary()
    return AttentionMaps([names[index] for index in batch["token_ids"][0, :count].tolist()], np.stack(weights))


def attention_weights(backbone, batch: dict) -> list[np.ndarray]:
    """The probabilities of each layer for a batch of one text without padding: float32 [N, S, S] each."""
    found, layers = [], layers_with_attention(backbone, "attention_maps")

    def see(layer):
        def probabilities(*args, **kwargs):
            kept = type(layer).probabilities(layer, *args, **kwargs)
            found.append(np.asarray(ops.cast(kept[0], "float32")))
            return kept

        return probabilities

    with instead(layers, "probabilities", see):
        backbone.forward(batch)
    return found


def layers_with_attention(backbone, function: str) -> list:
    """The attention of every block; refuses models whose attention is no table of tokens by tokens.

    Raises:
        ValueError: naming what such a model has in its place.
    """
    if len(backbone.config.stacks) > 1:
        raise ValueError(
            f"{function}: this model has an encoder and a decoder, whose attention is no single table; it is for "
            "models of one stack."
        )
    stack = backbone.stack
    if others := sorted(set(stack.kinds) - stack.attention.keys()):
        raise ValueError(
            f"{function}: layers of the kind {', '.join(others)} mix tokens without attention, and have no weights "
            'to show. explain(method="integrated_gradients") needs none.'
        )
    if backbone.prompt_length or backbone.prefix_length:
        raise ValueError(
            f"{function}: an adapter puts {backbone.prompt_length or backbone.prefix_length} trained vectors in front "
            'of every text, which are no tokens. explain(method="integrated_gradients") needs no attention.'
        )
    return [block.self_attention for block in backbone.blocks]


@contextlib.contextmanager
def instead(layers: list, method: str, replaced) -> Iterator[None]:
    """While it lasts, a method of each layer is `replaced(layer)`; no layer has code for those who look at it."""
    try:
        for layer in layers:
            setattr(layer, method, replaced(layer))
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop(method, None)
