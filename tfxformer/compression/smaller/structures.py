"""What can be removed from a block: its heads and its neurons, and where their weights are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfxformer.compression.smaller.one_stack import OneStack
from tfxformer.layers import Dense


@dataclass(frozen=True)
class RemovableParts:
    """Equal parts of a half of each block, side by side in its weights.

    Each part adds its own term to what the half returns, through its rows of the output projection: with these rows
    at zero it might as well not be there.

    Attributes:
        name: what messages call the parts.
        half: the half's name within a block.
        axes: path of a weight within the half -> its axis on which the parts lie.
    """

    name: str
    half: str
    axes: dict[str, int]

    def count(self, stack: OneStack) -> int:
        """How many parts a block has: groups of heads that share keys and values, or neurons."""
        return stack.config.feed_forward.size if self.half == "feed_forward" else stack.config.key_value_heads

    def readers(self, stack: OneStack) -> list[Dense]:
        """Each block's output projection, which reads the parts; that of a mixer in attention's place."""
        return [(getattr(block, self.half) or block.mixer).output_projection for block in stack.blocks]

    def weights(self, stack: OneStack, block: int) -> list[tuple]:
        """(variable, axis) of each weight that the parts of a block have a share in."""
        half = getattr(stack.blocks[block], self.half)
        prefix = f"{stack.prefix(block)}/{self.half}/"
        axes = {prefix + path: axis for path, axis in self.axes.items()}
        return [(variable, axes[variable.path]) for variable in half.weights if variable.path in axes]

    def cuts(self, stack: OneStack, kept: np.ndarray) -> dict[str, tuple[int, np.ndarray]]:
        """What `rebuild` needs to keep some parts of each block.

        Args:
            kept: int [blocks, parts], ascending.
        """
        found, count = {}, self.count(stack)
        for block, parts in enumerate(kept):
            for variable, axis in self.weights(stack, block):
                width = variable.shape[axis] // count
                places = parts[:, None] * width + np.arange(width)  # [parts, width]
                found[variable.path] = (axis, places.ravel())
        return found


_OF_HEADS = {
    "query/kernel": 1,
    "query/bias": 0,
    "gate/kernel": 1,
    "gate/bias": 0,
    "key/kernel": 1,
    "key/bias": 0,
    "value/kernel": 1,
    "value/bias": 0,
    "output/kernel": 0,
    # Of scores that compare distances, and segments.
    **{f"{name}/kernel": 1 for name in ("position_key", "position_query")},
    **{f"{name}/bias": 0 for name in ("position_key", "position_query")},
    **{f"relative/{name}_bias": 0 for name in ("content", "position", "segment")},
    "relative/segment_embeddings": 1,
}
HEADS = RemovableParts("attention heads", "self_attention", _OF_HEADS)
SOURCE_HEADS = RemovableParts("attention heads on the source", "cross_attention", _OF_HEADS)
NEURONS = RemovableParts(
    "feed-forward neurons",
    "feed_forward",
    {"expand/kernel": 1, "expand/bias": 0, "gate/kernel": 1, "gate/bias": 0, "output/kernel": 0},
)


def attentions(stack: OneStack) -> tuple[RemovableParts, ...]:
    """The heads that a stack has, whose number is one: its own, and where it reads a source those on that."""
    return (HEADS, SOURCE_HEADS) if stack.reads_source else (HEADS,)
