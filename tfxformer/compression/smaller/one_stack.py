"""The stack that something is removed from: a model's only one, or one of two."""

from __future__ import annotations

from dataclasses import dataclass

from tfxformer.compression.smaller.rebuilding import backbone_of
from tfxformer.layers import TransformerBlock
from tfxformer.models import StackConfig, TransformerConfig
from tfxformer.models.backbone import Backbone


@dataclass(frozen=True)
class OneStack:
    """One stack of a model of ours.

    Attributes:
        backbone: Backbone, whose it is.
        name: "encoder" or "decoder".
    """

    backbone: Backbone
    name: str

    @property
    def config(self) -> StackConfig:
        """The config of the stack."""
        return self.backbone.config.stacks[self.name]

    @property
    def blocks(self) -> list[TransformerBlock]:
        """Its blocks with weights of their own, in their order."""
        return self.backbone.blocks_of(self.name)

    @property
    def reads_source(self) -> bool:
        """Whether its layers attend to another stack's output, too."""
        return self.name == "decoder" and self._has_both

    @property
    def mask_name(self) -> str:
        """The input that says which of its tokens are real."""
        return f"{self.name}_padding_mask" if self._has_both else "padding_mask"

    @property
    def states_name(self) -> str:
        """The output of `forward` that has its hidden states."""
        return "hidden_states" if self.name == self.backbone.stack_name else f"{self.name}_hidden_states"

    @property
    def _has_both(self) -> bool:
        return len(self.backbone.config.stacks) > 1

    def prefix(self, index: int) -> str:
        """The first part of the paths of block `index`."""
        return f"{self.name}_block_{index}"

    def with_changes(self, **changes) -> TransformerConfig:
        """The backbone's config with other switches of this stack."""
        return self.backbone.config.replace(**{f"{self.name}__{name}": value for name, value in changes.items()})

    def names_after(self, kept: list[int]) -> tuple[dict[str, str], set[str]]:
        """({first part of a path in a model of some of its blocks: in this one}, {those that have no place there})."""
        forms = [f"{self.name}_block_{{}}"]
        if any(kind.scores is not None and not kind.scores.shared for kind in self.config.attention.values()):
            forms.append(f"{self.name}_position_scores_{{}}")  # a table for each layer
        names = {form.format(i): form.format(old) for form in forms for i, old in enumerate(kept)}
        there = {form.format(i) for form in forms for i in range(len(self.blocks))}
        return names, there - set(names.values())


def stack_of(model, stack: str | None, function: str) -> OneStack:
    """The stack of a model that a function is to make smaller.

    Args:
        stack: "encoder" or "decoder"; None for the only one.
        function: what was called, for messages.

    Raises:
        TypeError: for a model that is not ours. ValueError: for a stack that there is not, and None of two.
    """
    backbone = backbone_of(model)
    names = tuple(backbone.config.stacks)
    if stack is None and len(names) == 1:
        return OneStack(backbone, names[0])
    if stack is None:
        raise ValueError(
            f"{function}: {type(model).__name__} has an encoder and a decoder, which are made smaller one at a time: "
            'say which, stack="encoder" or stack="decoder".'
        )
    if stack not in names:
        raise ValueError(f"{function}: stack={stack!r} is not there; {type(model).__name__} has {' and '.join(names)}.")
    return OneStack(backbone, stack)
