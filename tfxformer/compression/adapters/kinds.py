"""What adapters are that are no LoRA: biases alone, scales, bottlenecks, prompts, and prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import keras

from tfxformer.compression.adapters.layer_choice import AdapterKind, Choice, matches
from tfxformer.compression.weights.matrices import Kernel
from tfxformer.layers import Dense, TokenEmbedding
from tfxformer.layers.activations import activation as check_activation
from tfxformer.models.backbone import Backbone
from tfxformer.models.config import AttentionConfig

_BIASES = ("bias", "beta")
# Under our names and KerasHub's.
_INNER = ("query", "key", "value", "gate", "expand")
_FEED_FORWARD_OUTPUT = ("feed_forward/output", "feedforward_output_dense")
_ATTENTION_OUTPUT = ("self_attention/output", "mixer/output", "attention_output")
# Tasks whose outputs know no other positions than their inputs'; None for a bare model.
_PROMPTED = (None, "text-classification", "token-classification", "question-answering", "causal-lm")


@dataclass(frozen=True)
class BitFit(AdapterKind):
    """Only biases are trained, those of norms among them (Ben Zaken et al., 2021, arXiv:2106.10199).

    Attributes:
        also_train: layers that are trained whole, and saved with the adapter: names or `also_train(layer) -> bool`;
            None for the classification heads of tfxformer's tasks, () for none.
    """

    also_train: Choice | None = None

    def __post_init__(self):
        self._check_choices("also_train")

    def kernels(self, model: keras.Model) -> list[Kernel]:
        return []

    def whole_variables(self, model: keras.Model) -> list[keras.Variable]:
        """The biases, and what else is trained.

        Raises:
            ValueError: for a model without biases.
        """
        head = super().whole_variables(model)
        known = {id(variable) for variable in head}
        biases = [one for one in model.trainable_variables if one.name in _BIASES and id(one) not in known]
        if not biases:
            raise ValueError(
                f"BitFit: {model.name!r} has no biases (models like Llama have none): take LoRA or IA3 for it."
            )
        return [*biases, *head]


@dataclass(frozen=True)
class IA3(AdapterKind):
    """A learned scale of each key, value and inner feed-forward unit, ones at first (Liu et al., arXiv:2205.05638).

    Attributes:
        targets: layers whose outputs are scaled: names of Dense and EinsumDense layers (a layer's name or the end of
            its path), or `targets(layer) -> bool`; () for none.
        feed_forward: layers whose inputs are, in the same way.
        also_train: layers that are trained whole, and saved with the adapter, in the same way; None for the
            classification heads of tfxformer's tasks, () for none.

    Raises ValueError where nothing is named. TypeError for what are no targets.
    """

    targets: Choice = ("key", "value")
    feed_forward: Choice = _FEED_FORWARD_OUTPUT
    also_train: Choice | None = None

    def __post_init__(self):
        for field in ("targets", "feed_forward"):
            if getattr(self, field) is None:
                raise TypeError(f"IA3: {field} are names of layers, or a function layer -> bool; got None.")
        self._check_choices("targets", "feed_forward", "also_train")
        if self.targets == () == self.feed_forward:
            raise ValueError("IA3: neither targets nor feed_forward names a layer, so there is nothing to scale.")

    def kernels(self, model: keras.Model) -> list[Kernel]:
        outputs = self._matching(model, "targets") if self.targets != () else []
        inputs = self._matching(model, "feed_forward") if self.feed_forward != () else []
        twice = {one.layer.path for one in outputs} & {one.layer.path for one in inputs}
        if twice:
            raise ValueError(f"IA3: {min(twice)} is among both targets and feed_forward: a layer has one scale.")
        return [*outputs, *inputs]

    def arguments(self, kernel: Kernel) -> dict:
        return {"kind": "scaling", "of_inputs": matches(self.feed_forward, kernel.layer)}


@dataclass(frozen=True)
class Bottleneck(AdapterKind):
    """Two small Dense layers and a residual sum behind the outputs of attention and feed-forward.

    Sources: Houlsby et al., 2019 (arXiv:1902.00751), both; Pfeiffer et al., 2020 (arXiv:2005.00247), only the
    feed-forward half: `targets="feed_forward/output"`. It cannot be merged.

    Attributes:
        size: int, width between the two.
        activation: str, a name of `layers.activations`.
        targets: behind which Dense and EinsumDense layers: names (a layer's name or the end of its path), or
            `targets(layer) -> bool`.
        also_train: layers that are trained whole, and saved with the adapter, in the same way; None for the
            classification heads of tfxformer's tasks, () for none.

    Raises ValueError for a width below 1. TypeError for targets that name nothing.
    """

    size: int = 32
    activation: str = "gelu"
    targets: Choice = (*_ATTENTION_OUTPUT, *_FEED_FORWARD_OUTPUT)
    also_train: Choice | None = None

    def __post_init__(self):
        if not isinstance(self.size, Integral) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"Bottleneck: size is the width between its layers, 1 or more; got {self.size!r}.")
        check_activation(self.activation)
        if self.targets is None:
            raise TypeError("Bottleneck: targets are names of layers, or a function layer -> bool; got None.")
        self._check_choices("targets", "also_train")

    def kernels(self, model: keras.Model) -> list[Kernel]:
        chosen = self._matching(model, "targets")
        for kernel in chosen:
            layer = kernel.layer
            inner = isinstance(layer, Dense) and layer.name in _INNER
            if inner or layer.activation not in (None, keras.activations.linear) or len(_outputs(kernel)) > 1:
                raise ValueError(
                    f"Bottleneck: {layer.path} is inside a half, has an activation or more than one axis of outputs; a "
                    "bottleneck stands behind a half's output (self_attention/output, feed_forward/output)."
                )
        return chosen

    def arguments(self, kernel: Kernel) -> dict:
        return {"kind": "bottleneck", "size": self.size, "activation": self.activation}


def _check_length(kind, what: str) -> None:
    if not isinstance(kind.length, Integral) or isinstance(kind.length, bool) or kind.length < 1:
        raise ValueError(f"{type(kind).__name__}: length counts {what}, 1 or more; got {kind.length!r}.")


@dataclass(frozen=True)
class PromptTuning(AdapterKind):
    """Learned embeddings in front of every text (Lester et al., 2021, arXiv:2104.08691).

    They begin as those of random tokens, so unlike other adapters a new one changes what the model computes. Encoders
    and decoders of tfxformer, text and token classifiers, question answering and causal language models have it; texts
    may be that much shorter. It cannot be merged, and a decoder with it cannot be exported.

    Attributes:
        length: int P, embeddings.
        also_train: layers that are trained whole, and saved with the adapter: names or `also_train(layer) -> bool`;
            None for the classification heads of tfxformer's tasks, () for none.
    """

    length: int = 16
    also_train: Choice | None = None

    def __post_init__(self):
        _check_length(self, "embeddings")
        self._check_choices("also_train")

    def kernels(self, model: keras.Model) -> list[Kernel]:
        backbone, task = getattr(model, "backbone", model), getattr(model, "task_name", None)
        if not isinstance(backbone, Backbone) or task not in _PROMPTED:
            raise ValueError(
                f"PromptTuning: {model.name!r} is a {type(model).__name__}; wanted an encoder or decoder of tfxformer, "
                f"or a task of {', '.join(filter(None, _PROMPTED))}. Take LoRA for it."
            )
        if backbone.stack.delta_rule is not None:
            raise ValueError(
                f"PromptTuning: {model.name!r} has layers of the kind delta_rule, whose state begins anew with each "
                "document of a packed row, and would forget the prompt. Take LoRA for it."
            )
        longest = backbone.config.max_sequence_length - self.length
        if longest < 1 or longest < (getattr(model, "sequence_length", None) or 1):
            raise ValueError(
                f"PromptTuning: length={self.length} leaves {longest} of the model's positions for texts, too few."
            )
        return [table_of(backbone.token_embedding)]

    def arguments(self, kernel: Kernel) -> dict:
        return {"kind": "prompt", "length": self.length}


@dataclass(frozen=True)
class PrefixTuning(AdapterKind):
    """Learned keys and values that every token of a decoder sees in every layer (Li and Liang, arXiv:2101.00190).

    They begin random, without the paper's second network, so unlike other adapters a new one changes what the model
    computes. Decoders of tfxformer have it, alone or behind an encoder, where their positions are no ALiBi; so do tasks
    on them. Of an encoder-decoder it is in the decoder's self-attention, as peft's is. Texts may be that much shorter.
    It cannot be merged; generation and a decoder's `.tflite` file compute it.

    Attributes:
        length: int P, keys and values of each head.
        also_train: layers that are trained whole, and saved with the adapter: names or `also_train(layer) -> bool`;
            None for the classification heads of tfxformer's tasks, () for none.
    """

    length: int = 16
    also_train: Choice | None = None

    def __post_init__(self):
        _check_length(self, "keys and values")
        self._check_choices("also_train")

    def kernels(self, model: keras.Model) -> list[Kernel]:
        backbone = getattr(model, "backbone", model)
        stack = backbone.config.decoder if isinstance(backbone, Backbone) else None
        kinds = [] if stack is None else stack.attention.values()
        if stack is None or stack.has_states or any(_alibi(kind) or kind.window is not None for kind in kinds):
            raise ValueError(
                f"PrefixTuning: {model.name!r} is a {type(model).__name__}; wanted a decoder of tfxformer, alone or "
                "behind an encoder, or a task on one, with attention in all layers, no ALiBi and no sliding window. "
                "Take PromptTuning or LoRA."
            )
        longest = backbone.config.max_sequence_length - self.length
        if longest < 1 or longest < (getattr(model, "sequence_length", None) or 1):
            raise ValueError(
                f"PrefixTuning: length={self.length} leaves {longest} of the model's positions for texts, too few."
            )
        return attention_kernels(backbone)

    def arguments(self, kernel: Kernel) -> dict:
        return {"kind": "prefix", "length": self.length, "heads": kernel.layer.num_key_value_heads}


def _alibi(kind: AttentionConfig) -> bool:
    return kind.scores is not None and kind.scores.kind == "alibi"


def attention_kernels(backbone: Backbone) -> list[Kernel]:
    """The self-attention of each block that has one as what an adapter stands beside, with its keys' kernel, in order.

    Of an encoder-decoder they are the decoder's.
    """
    layers = [block.self_attention for block in backbone.blocks_of(backbone.stack_name)]
    return [Kernel(layer, layer.key.base_kernel, (0,)) for layer in layers if layer is not None]


def table_of(layer: TokenEmbedding) -> Kernel:
    """A token table as what an adapter stands beside."""
    return Kernel(layer, layer.embeddings, (0,))


def _outputs(kernel: Kernel) -> list[int]:
    """The axes of a kernel that are outputs."""
    return [axis for axis in range(len(kernel.variable.shape)) if axis not in kernel.summed_axes]
