"""LFM2 (Liquid AI, 2025): short gated convolutions, and attention in some of the layers."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, groups_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import rope_rule

_LAYERS, _INNER = 32, 12288
_KINDS = {"full_attention": "full", "conv": "convolution"}  # theirs -> ours


def _read_kinds(reference: Mapping) -> dict:
    """Which layers have attention: `layer_types`, else those of `full_attn_idxs`, else all."""
    layers = reference.get("num_hidden_layers") or _LAYERS
    types, full = reference.get("layer_types"), reference.get("full_attn_idxs")
    if types is None:
        full = range(layers) if full is None else full
        types = ["full_attention" if layer in full else "conv" for layer in range(layers)]
    if not set(types) <= _KINDS.keys() or len(types) != layers:
        raise CheckpointError(
            f"config.json says layer_types={types} for {layers} layers; tfxformer wants {' or '.join(_KINDS)} for each."
        )
    width = reference.get("conv_L_cache") or 3
    return {"decoder.pattern": [_KINDS[one] for one in types], "decoder.convolution": {"width": width}}


def _write_kinds(config) -> dict:
    theirs, stack = {ours: kind for kind, ours in _KINDS.items()}, config.decoder
    width = {} if stack.convolution is None else {"conv_L_cache": stack.convolution.width}
    return {"layer_types": [theirs.get(kind, "full_attention") for kind in stack.kinds], **width}


def _read_inner(reference: Mapping) -> dict:
    """F, of what `intermediate_size` (in the first files `block_ff_dim`) becomes where it is to be adjusted."""
    size = reference.get("block_ff_dim") or reference.get("intermediate_size") or _INNER
    if reference.get("block_auto_adjust_ff_dim", True):
        factor, unit = reference.get("block_ffn_dim_multiplier") or 1.0, reference.get("block_multiple_of") or 256
        size = -(-int(factor * int(2 * size / 3)) // unit) * unit
    return {"decoder.feed_forward.size": size}


def _write_inner(config) -> dict:
    return {"intermediate_size": config.decoder.feed_forward.size, "block_auto_adjust_ff_dim": False}


_ADJUSTED = ("block_auto_adjust_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of")
_KEYS = llama.without_biases(llama.sizes(65536, _LAYERS, 2560, 32, _INNER, 128000))
_NOT_SAID = ("decoder.feed_forward.size", "decoder.feed_forward.activation", "decoder.attention_dropout")
FAMILY = replace(
    llama.FAMILY,
    name="lfm2",
    architecture="Lfm2Model",
    keys={
        **{path: key for path, key in _KEYS.items() if path not in _NOT_SAID},
        "decoder.norm.epsilon": Key("norm_eps", 1e-5),
        "heads.tied": Key("tie_word_embeddings", True, also=("tie_embedding",)),
    },
    fixed={
        **llama.FIXED,
        **llama.NO_BIASES,
        "decoder.feed_forward.activation": "silu",
        "decoder.attention_dropout": 0.0,
        "decoder.attention.query_key_norm": "head",
    },
    rules=(
        groups_rule(8),
        Rule(("layer_types", "full_attn_idxs", "conv_L_cache"), _read_kinds, _write_kinds),
        Rule(("intermediate_size", "block_ff_dim", *_ADJUSTED), _read_inner, _write_inner),
        rope_rule(128000, default_base=1e6),
        padding_rule(pad=0, eos=2),
        CAUSAL,
    ),
    # Biases of its convolutions would reach texts from their padding; no released model has them.
    required={"conv_bias": (False,)},
    modules={"token_embedding": "embed_tokens", "final_norm": "embedding_norm"},
    blocks={
        "decoder": Blocks(
            llama.block,
            {
                "self_attention/query": "self_attn.q_proj",
                "self_attention/key": "self_attn.k_proj",
                "self_attention/value": "self_attn.v_proj",
                "self_attention/output": "self_attn.out_proj",
                "self_attention/query_norm": "self_attn.q_layernorm",
                "self_attention/key_norm": "self_attn.k_layernorm",
                "mixer/input": "conv.in_proj",
                "mixer/convolution": Module("conv.conv", by_channel=True),
                "mixer/output": "conv.out_proj",
                "attention_norm": "operator_norm",
                "feed_forward/gate": "feed_forward.w1",
                "feed_forward/expand": "feed_forward.w3",
                "feed_forward/output": "feed_forward.w2",
                "feed_forward_norm": "ffn_norm",
            },
        )
    },
    heads={"causal-lm": llama.heads("Lfm2")["causal-lm"]},
    other_heads=(),
)
