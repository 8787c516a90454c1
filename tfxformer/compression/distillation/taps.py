"""What a functional model computes on the way: hidden states, and what attention projects, as further outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
from keras import ops

from tfxformer.layers.blocks.block import TransformerBlock

OUTPUT = "output"
PROJECTIONS = ("query", "key", "value")


class Taps:
    """Where the tensors of a functional model can be read.

    Blocks are counted from 0, as everywhere; hidden states as in transformers: state 0 is the embeddings, state i + 1
    what block i gives. Weights that run several times (ALBERT) count each time. What is read comes from the pass that
    gives the outputs, so that dropout is the same.

    Args:
        model: functional keras.Model.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        # From the inputs on: the deepest nodes first.
        depths = sorted(model._nodes_by_depth.items(), reverse=True)
        self._nodes = [node for _, nodes in depths for node in nodes if not node.is_input]
        self.blocks = [node for node in self._nodes if isinstance(node.operation, TransformerBlock)]

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    def state(self, which: int | str):
        """Hidden state number `which`, or the output of the layer of that name: a symbolic tensor [B, S, D]."""
        if isinstance(which, str):
            found = [node for node in self._nodes if node.operation.name == which]
            if len(found) != 1 or len(found[0].outputs) != 1:
                names = [node.operation.name for node in self._nodes if getattr(node.operation, "weights", ())]
                raise ValueError(
                    f"{self.model.name} has {len(found)} layers {which!r} with one output in its graph; its layers "
                    f"with weights: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
                )
            return found[0].outputs[0]
        self.check_number(which, "hidden states", len(self.blocks) + 1)
        return self.blocks[0].arguments.args[0] if which == 0 else self.blocks[which - 1].outputs[0]

    def check_number(self, number: int, what: str = "layers", there: int | None = None) -> None:
        """Refuses a block that the model does not have; or what else is counted from 0, and how many are there."""
        if not self.blocks:
            raise ValueError(
                f"{self.model.name} has no Transformer block of tfxformer in its graph, so its layers have no numbers: "
                "name the layers (HiddenStateLoss), or learn its outputs (LogitsLoss)."
            )
        there = len(self.blocks) if there is None else there
        if not isinstance(number, int) or not 0 <= number < there:
            embeddings = " (0: the embeddings)" if there > len(self.blocks) else ""
            raise ValueError(
                f"{self.model.name} has {what} 0 to {there - 1}{embeddings}; the layer map names {number!r}."
            )

    def attention(self, number: int):
        """The `layers.Attention` of block `number`; ValueError for a block that has another mixer."""
        self.check_number(number)
        block = self.blocks[number].operation
        if block.self_attention is None:
            raise ValueError(
                f"Layer {number} of {self.model.name} has a {type(block.mixer).__name__} in place of attention, whose "
                "queries and keys there are none of: leave it out of layers=, or learn its states (HiddenStateLoss)."
            )
        return block.self_attention

    def reader(self, states: Iterable = (), projections: Iterable = (), outputs=True, biases=True) -> Callable:
        """A function (batch, training) -> dict of tensors.

        Args:
            states: hidden states, by number or layer name; key (as `state_key` says) -> [B, S, D].
            projections: pairs (block number, "query", "key" or "value"); `projection_key` -> [B, S, N*H], as attention
                uses them, rotated by position but not scaled.
            outputs: bool, whether the model's outputs are there: "output".
            biases: bool, whether with projections comes `bias_key` -> the block's attention bias, where it has one.
        """
        states, projections = list(dict.fromkeys(states)), list(dict.fromkeys(projections))
        wanted = {state_key(which): self.state(which) for which in states}
        if outputs:
            wanted[OUTPUT] = self.model.output
        blocks = {}
        for number in dict.fromkeys(number for number, _ in projections):
            arguments = self.blocks[number].arguments
            found = {"input": arguments.args[0], **{name: arguments.kwargs.get(name) for name in ("bias", "rotary")}}
            blocks[number] = {name: value for name, value in found.items() if value is not None}
        function = keras.Model(self.model.input, {**wanted, "blocks": {str(n): found for n, found in blocks.items()}})

        def read(batch, training=False):
            values = function(batch, training=training)
            found = values.pop("blocks", {})
            for number, which in projections:
                block = found[str(number)]
                values[projection_key(number, which)] = self._project(
                    number, which, block["input"], block.get("rotary")
                )
                if biases and "bias" in block:
                    values[bias_key(number)] = block["bias"]
            return values

        return read

    def _project(self, number: int, which: str, x, rotary=None):
        block = self.blocks[number].operation
        attention = block.self_attention
        return attention.projected(which, block.read_by_attention(x), rotary)


def state_key(which: int | str) -> str:
    """The name of a hidden state among what a reader gives."""
    return f"state_{which}"


def projection_key(number: int, which: str) -> str:
    """The name of a block's queries, keys or values."""
    return f"{which}_{number}"


def bias_key(number: int) -> str:
    """The name of a block's attention bias."""
    return f"bias_{number}"


def token_mask(batch):
    """float32 [B, S], 1 at real tokens; None for a model whose batches have no `padding_mask`."""
    if not isinstance(batch, dict) or "padding_mask" not in batch:
        return None
    return ops.cast(ops.not_equal(batch["padding_mask"], 0), "float32")
