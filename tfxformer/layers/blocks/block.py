"""The one block of every stack: attention, an encoder's output where it is read, and feed-forward.

Shape letters: B batch, S query length, T key length, T' length of an encoder's output, N query heads, D model width.
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.adapters.base import adapter_seed
from tfxformer.layers.attention.attention import Attention
from tfxformer.layers.attention.block_call import BlockCall, arguments_of, seeds_of
from tfxformer.layers.attention.cache import cache_spec
from tfxformer.layers.attention.masks import MaskPattern, Seen, keras_mask
from tfxformer.layers.blocks.sublayers import deserialized, given, read_older_names, serialized
from tfxformer.layers.feed_forward import FeedForward
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.kernels.dropout import drop_path
from tfxformer.layers.kernels.recomputing import recomputed
from tfxformer.layers.mixers.convolution import Mixer
from tfxformer.layers.normalization import NORMS, make_norm, one_hot
from tfxformer.layers.quantization.fake_quantization import in_force, rounded, rounding, rounds
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer, call_written, chosen
from tfxformer.layers.quantization.outlier_channels import channels_apart

PLACEMENTS = ("post", "pre", "parallel", "shared", "sandwich", "output")
_READ_NORMED = ("pre", "parallel", "shared", "sandwich")  # a half reads its norm of the stream


@keras.saving.register_keras_serializable("tfxformer")
class TransformerBlock(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """Attention and feed-forward, each a half with dropout, a residual sum and a norm.

    Args:
        attention: dict of arguments of `Attention`, or such a layer; or a `Mixer` in its place (`ShortConvolution`),
            which reads `padding_mask` (or `mask`) and of a cache its state, and nothing else that attention is told.
        feed_forward: dict of arguments of `FeedForward`, or any layer [B, S, D] -> [B, S, D].
        norm: one of `NORMS`; or any layer [B, S, D] -> [B, S, D], of which each place gets a copy.
        norm_placement: "post" norms the sum (BERT); "pre" norms what a half reads (Xiong et al., arXiv:2002.04745);
            "parallel" too, and both halves read the block's input (GPT-NeoX, arXiv:2204.06745); "shared" by one norm
            (Phi); "output" norms what a half gives (OLMo 2, arXiv:2501.00656); "sandwich" what it reads and what it
            gives (Gemma 2, arXiv:2408.00118).
        norm_epsilon: float.
        norm_bias: bool, whether "layer" norms have a beta.
        attention_normed: bool; False where attention reads what is normed already (the first block of ModernBERT).
        residual_scale: float, what each half's output is multiplied by before it is added (Granite).
        dropout: float, dropout rate of each half's output.
        stochastic_depth: float, rate at which a half is left out per sample (Huang et al., arXiv:1603.09382).
        cross_attention: bool, whether the block attends to an encoder's output too, in a half of its own.
        gradient_checkpointing: bool, recompute the block in the backward pass instead of keeping its activations.

    Call:
        inputs: [B, S, D].
        bias: additive bias of self-attention, broadcastable to [B, N, S, T], without gradient; None for that of
            `mask` and `causal`.
        rotary: None, or (cosine, sine) of the tokens' positions (`RotaryPositions`).
        cache: None, or (keys, values) of self-attention, written at `position`; of a mixer its state.
        position: int32 scalar, the slot of the first token.
        first_only: bool, compute the first position alone (it still attends to all): what a classifier reads of the
            last block, at a fraction of its cost.
        attended: [B, T, D], what self-attention attends to in place of `inputs` (two-stream attention).
        attended_rotary: (cosine, sine) of its positions.
        source: [B, T', D], the encoder's output; None once `source_cache` holds its keys and values.
        source_bias: additive bias of cross-attention; None for that of `source_mask`.
        source_cache: None, or the finished (keys, values) of cross-attention (see `Attention`).
        scores: additive scores of self-attention to which gradients flow (`layers.PositionScores`), [B, N, S, T].
        mask, source_mask: bool [B, S] and [B, T'], True at real tokens; None for the masks of Keras layers such as
            `Embedding(mask_zero=True)`. Not read where a bias is given.
        causal: bool, whether tokens see themselves and earlier ones only. Not read where a bias is given.
        padding_mask, pattern: what a given `bias` says, see `Attention`.
        segments: int [B, S], the tokens' segments, where attention compares them (`Attention`).
        source_padding_mask: int [B, T'], what a given `source_bias` says, if nothing else.

    Returns:
        [B, S, D] (with `first_only` [B, 1, D]), or with a cache ([B, S, D], new cache).

    Raises ValueError for an unknown norm or placement, and for switches that contradict each other.
    """

    def __init__(
        self,
        attention,
        feed_forward,
        norm="layer",
        norm_placement="post",
        norm_epsilon=1e-12,
        norm_bias=True,
        attention_normed=True,
        residual_scale=1.0,
        dropout=0.0,
        stochastic_depth=0.0,
        cross_attention=False,
        gradient_checkpointing=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if norm_placement not in PLACEMENTS:
            raise ValueError(f"Unknown norm placement {norm_placement!r}; known: {', '.join(PLACEMENTS)}.")
        if cross_attention and norm_placement in ("parallel", "shared"):
            raise ValueError(f"A block with cross-attention cannot have norm_placement={norm_placement!r}.")
        if not attention_normed and norm_placement not in ("pre", "parallel", "sandwich"):
            raise ValueError(f"attention_normed=False says nothing with norm_placement={norm_placement!r}.")
        self.attention_given = given("attention", attention, Attention, Mixer)
        if cross_attention and isinstance(attention, Mixer):
            raise ValueError(f"A block with cross-attention has self-attention, no {type(attention).__name__}.")
        self.feed_forward_given = given("feed_forward", feed_forward, keras.layers.Layer)
        if isinstance(norm, str) and norm not in NORMS:
            raise ValueError(f"Unknown norm {norm!r}; known: {', '.join(NORMS)}, or a Keras layer.")
        # A layer as its config: what is copied is no part of the block.
        self.norm = norm if isinstance(norm, str) else serialized(given("norm", norm, keras.layers.Layer))
        self.norm_placement = norm_placement
        self.norm_epsilon = norm_epsilon
        self.norm_bias = norm_bias
        self.attention_normed = attention_normed
        self.residual_scale = residual_scale
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.has_cross_attention = cross_attention
        self.gradient_checkpointing = gradient_checkpointing
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True

    def build(self, input_shape):
        mixing = self._attention("self_attention")
        self.self_attention, self.mixer = (None, mixing) if isinstance(mixing, Mixer) else (mixing, None)
        self.attention_norm = self._norm("attention_norm") if self.attention_normed else None
        self.feed_forward = self.feed_forward_given
        if isinstance(self.feed_forward, dict):
            self.feed_forward = FeedForward(**self.feed_forward, dtype=self.dtype_policy, name="feed_forward")
        self.feed_forward_norm = None if self.norm_placement == "shared" else self._norm("feed_forward_norm")
        self.cross_attention = self._attention("cross_attention") if self.has_cross_attention else None
        self.cross_attention_norm = self._norm("cross_attention_norm") if self.has_cross_attention else None
        sandwich, crosses = self.norm_placement == "sandwich", self.has_cross_attention
        self.attention_output_norm = self._norm("attention_output_norm") if sandwich else None
        self.feed_forward_output_norm = self._norm("feed_forward_output_norm") if sandwich else None
        self.cross_attention_output_norm = self._norm("cross_attention_output_norm") if sandwich and crosses else None
        for layer in self._flatten_layers(include_self=False, recursive=False):
            if not layer.built:
                layer.build(input_shape)

    def _attention(self, name):
        layer = self.attention_given
        if isinstance(layer, dict):
            layer = Attention(**layer, dtype=self.dtype_policy, name=name)
        elif name != "self_attention":  # one layer cannot be both
            layer = type(layer).from_config({**layer.get_config(), "name": name})
        layer.own_seeds = False
        return layer

    def _norm(self, name):
        if isinstance(self.norm, str):
            return make_norm(self.norm, self.norm_epsilon, self.dtype_policy, name, self.norm_bias)
        return deserialized({**self.norm, "config": {**self.norm["config"], "name": name}})

    def call(
        self,
        inputs,
        bias=None,
        rotary=None,
        cache=None,
        position=None,
        first_only=False,
        attended=None,
        attended_rotary=None,
        source=None,
        source_bias=None,
        source_cache=None,
        scores=None,
        mask=None,
        source_mask=None,
        causal=False,
        padding_mask=None,
        pattern: MaskPattern | None = None,
        source_padding_mask=None,
        segments=None,
        training=None,
        graph_form: GraphForm = DEFAULT,
    ):
        graph_form = in_force().graph_form if rounds(self) else chosen(graph_form)
        seen = None if pattern is None else Seen(padding_mask, pattern)
        source_seen = None if source_padding_mask is None else Seen(source_padding_mask, MaskPattern())
        if self.mixer is not None:
            seen = Seen(keras_mask(inputs, mask if padding_mask is None else padding_mask), None)
        elif bias is None:
            own = self.self_attention
            bias, seen = own.bias_of(inputs, attended, cache, position, mask, None, causal, graph_form)
        if source is not None and source_bias is None:
            source_bias, source_seen = self.cross_attention.bias_of(
                inputs, source, None, None, None, source_mask, False, graph_form
            )
        call = BlockCall(
            bias, rotary, position, attended_rotary, source_bias, seen, source_seen, source_cache, first_only,
            seeds_of(self, training), training, graph_form, segments,
        )  # fmt: skip
        streams = {"x": inputs, "scores": scores, "attended": attended, "source": source}
        streams = {name: x for name, x in streams.items() if x is not None}
        if training and self.gradient_checkpointing and cache is None:
            quantization = in_force()

            def transform(*tensors):
                with rounding(quantization):  # the second run, in the backward pass, stands in no call of the model
                    return self._transform(call, **dict(zip(streams, tensors, strict=True)))[0]

            return recomputed(self, transform, *streams.values())
        outputs, cache = self._transform(call, cache=cache, **streams)
        return outputs if cache is None else (outputs, cache)

    def _transform(self, call, x, cache=None, scores=None, attended=None, source=None):
        """([B, S, D], new cache or None)."""
        with adapter_seed(call.seeds[-1]):
            if self._trains_fast(call, cache):
                return self._train_post(call, x, scores, attended), None
            stream = x[:, :1] if call.first_only else x
            half, cache = self._attend(call, x, cache, scores, attended)
            if self.norm_placement in ("parallel", "shared"):
                norm = self.attention_norm if self.norm_placement == "shared" else self.feed_forward_norm
                second = self._feed_forward(call, call_written(norm, stream, graph_form=call.graph_form))
                half = rounded(stream + self._scaled(half), self, "attention_sum") + self._scaled(second)
                return rounded(half, self, "feed_forward_sum"), cache
            stream = self._add(call, "attention", stream, half)
            if self.has_cross_attention:
                half = self._attend_to_source(call, self._read("cross_attention", stream, call.graph_form), source)
                stream = self._add(call, "cross_attention", stream, half)
            channels = self._channels_apart(call)
            if channels is not None:
                return self._norm_apart(call, stream, channels), cache
            half = self._feed_forward(call, self._read("feed_forward", stream, call.graph_form))
            return self._add(call, "feed_forward", stream, half), cache

    def read_by_attention(self, x, graph_form: GraphForm = DEFAULT):
        """What self-attention reads of the stream: its norm, where the placement says so, [B, S, D] -> [B, S, D]."""
        return self._read("attention", x, graph_form)

    # ---- halves ----------------------------------------------------------------------------------------------------

    def _read(self, name, x, graph_form):
        """What a half reads of the stream."""
        norm = getattr(self, f"{name}_norm")
        if norm is None or self.norm_placement not in _READ_NORMED:
            return x
        return call_written(norm, x, graph_form=graph_form)

    def _add(self, call, name, stream, half):
        """The stream and a half's output, summed and normed as the placement says."""
        norm, form = getattr(self, f"{name}_norm"), call.graph_form
        if self.norm_placement == "post":
            return call_written(norm, stream + self._scaled(half), graph_form=form)
        if self.norm_placement == "output":
            half = call_written(norm, half, graph_form=form)
        elif self.norm_placement == "sandwich":
            half = call_written(getattr(self, f"{name}_output_norm"), half, graph_form=form)
        return rounded(stream + self._scaled(half), self, f"{name}_sum")

    def _scaled(self, half):
        return half if self.residual_scale == 1.0 else half * self.residual_scale

    def _attend(self, call, x, cache, scores, attended):
        query = self._read("attention", x, call.graph_form)
        if self.mixer is not None:
            return self._mix(call, query, cache)
        attended = None if attended is None else self._read("attention", attended, call.graph_form)
        if call.first_only:
            query, attended = query[:, :1], query if attended is None else attended
        rotary, attended_rotary, bias, scores = call.of_first(scores)
        result = self.self_attention(
            query, source=attended, bias=bias, rotary=rotary, source_rotary=attended_rotary, scores=scores,
            cache=cache, position=call.position, segments=call.segments, training=call.training, seed=call.seeds[0],
            graph_form=call.graph_form, **arguments_of(call.seen),
        )  # fmt: skip
        half, cache = (result, None) if cache is None else result
        return self._regularize(half, call.seeds[1], call.seeds[2]), cache

    def _mix(self, call, x, cache):
        form, mask = call.graph_form, call.seen.padding_mask
        result = self.mixer(x, padding_mask=mask, cache=cache, training=call.training, graph_form=form)
        half, cache = (result, None) if cache is None else result
        return self._regularize(half[:, :1] if call.first_only else half, call.seeds[1], call.seeds[2]), cache

    def _attend_to_source(self, call, x, source):
        half = self.cross_attention(
            x, source=source, bias=call.source_bias, cache=call.source_cache, training=call.training,
            seed=call.seeds[5], graph_form=call.graph_form, **arguments_of(call.source_seen),
        )  # fmt: skip
        half = half if call.source_cache is None else half[0]
        return self._regularize(half, call.seeds[6], call.seeds[7])

    def _feed_forward(self, call, x):
        half = call_written(self.feed_forward, x, graph_form=call.graph_form, training=call.training)
        return self._regularize(half, call.seeds[3], call.seeds[4])

    def _regularize(self, x, dropout_seed, path_seed):
        if dropout_seed is None:
            return x
        if self.dropout:
            x = kernels.dropout(x, self.dropout, dropout_seed)
        return drop_path(x, self.stochastic_depth, path_seed) if self.stochastic_depth else x

    # ---- the sum in two parts, for int8 ------------------------------------------------------------------------------

    def _channels_apart(self, call):
        """The channels of the last sum that are computed apart, or None."""
        if self.norm_placement != "post" or self.residual_scale != 1.0 or not self._is_ours:
            return None
        if self.feed_forward.output_projection.followed:  # an adapter wants them all
            return None
        return channels_apart(self.feed_forward_norm, call.graph_form)

    def _norm_apart(self, call, stream, channels):
        """The norm of a sum whose second part comes in two: `channels` alone, and the others."""
        halves = self.feed_forward(stream, graph_form=call.graph_form, channels=channels)
        others, outliers = (self._regularize(half, call.seeds[3], call.seeds[4]) for half in halves)
        place = one_hot(channels, stream.shape[-1])
        others += rounded(stream * ops.cast(1.0 - place.sum(axis=0), stream.dtype), self, "others")
        outliers += rounded(ops.matmul(stream, ops.cast(place.T, stream.dtype)), self, "outliers")
        return self.feed_forward_norm(others, outliers=outliers, channels=channels)

    # ---- the fast training path --------------------------------------------------------------------------------------

    @property
    def _is_ours(self) -> bool:
        """Whether feed-forward and norms are layers whose insides are known here."""
        return isinstance(self.feed_forward, FeedForward) and self.norm == "layer"

    def _trains_fast(self, call, cache) -> bool:
        return bool(
            call.training
            and cache is None
            and self.norm_placement == "post"
            and self.residual_scale == 1.0
            and self._is_ours
            and self.mixer is None
            and not self.has_cross_attention
            and not self.stochastic_depth
            and not rounds(self)
        )

    def _train_post(self, call, x, scores, attended):
        """The block, its bias, dropout, sum and norm in one kernel each."""
        stream = x
        if call.first_only:
            stream, attended = x[:, :1], x if attended is None else attended
        rotary, attended_rotary, bias, scores = call.of_first(scores)
        context = self.self_attention.training_context(
            stream, attended, bias, call.seeds[0], rotary, rotary if attended is None else attended_rotary, scores,
            call.seen, segments=call.segments,
        )  # fmt: skip
        output = self.self_attention.output_projection
        x = self._add_norm(context, output, stream, self.attention_norm, call.seeds[1])
        inner = self.feed_forward.inner(x, training=True)
        return self._add_norm(inner, self.feed_forward.output_projection, x, self.feed_forward_norm, call.seeds[3])

    def _add_norm(self, inputs, projection, residual, norm, seed):
        product, bias = projection.product_and_bias(inputs)
        return kernels.add_norm(product, residual, norm.factor, norm.shift, norm.epsilon, bias, self.dropout, seed)

    # ---- Keras -------------------------------------------------------------------------------------------------------

    def compute_output_spec(self, inputs, *args, cache=None, first_only=False, **kwargs):
        length = 1 if first_only else inputs.shape[1]
        outputs = keras.KerasTensor((inputs.shape[0], length, inputs.shape[2]), dtype=self.compute_dtype)
        return outputs if cache is None else (outputs, cache_spec(cache))

    def get_config(self):
        return {
            **super().get_config(),
            "attention": serialized(self.attention_given),
            "feed_forward": serialized(self.feed_forward_given),
            "norm": self.norm,
            "norm_placement": self.norm_placement,
            "norm_epsilon": self.norm_epsilon,
            "norm_bias": self.norm_bias,
            "attention_normed": self.attention_normed,
            "residual_scale": self.residual_scale,
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "cross_attention": self.has_cross_attention,
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    def load_own_variables(self, store):
        read_older_names(store)
        super().load_own_variables(store)

    @classmethod
    def from_config(cls, config):
        if "norm_position" in config:  # of an encoder's or a decoder's block in a file of version 0.5.0
            config = {**config, "norm_placement": config["norm_position"]}
            del config["norm_position"]
        layers = {name: deserialized(config[name]) for name in ("attention", "feed_forward", "norm")}
        return cls(**{**config, **layers})
