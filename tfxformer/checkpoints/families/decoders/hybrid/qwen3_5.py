"""The text part of Qwen3.5 (Qwen Team, 2026): a gated delta rule, and gated attention in every fourth layer."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, fused_parts, heads_rule, padding_rule
from tfxformer.checkpoints.families.nested import Nested
from tfxformer.checkpoints.family import Blocks, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import rope_rule

_LAYERS = 32
_KINDS = {"full_attention": "full", "linear_attention": "delta_rule"}  # theirs -> ours
_RULE = {  # ours -> (theirs, default)
    "key_heads": ("linear_num_key_heads", 16),
    "value_heads": ("linear_num_value_heads", 32),
    "key_width": ("linear_key_head_dim", 128),
    "value_width": ("linear_value_head_dim", 128),
    "convolution": ("linear_conv_kernel_dim", 4),
}


def _read_kinds(reference: Mapping) -> dict:
    """Which layers have attention: `layer_types`, else every `full_attention_interval`-th."""
    layers, every = reference.get("num_hidden_layers") or _LAYERS, reference.get("full_attention_interval") or 4
    types = reference.get("layer_types")
    if types is None:
        types = ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]
    if not set(types) <= _KINDS.keys() or len(types) != layers:
        raise CheckpointError(
            f"config.json says layer_types={types} for {layers} layers; tfxformer wants {' or '.join(_KINDS)} for each."
        )
    rule = {ours: reference.get(theirs) or default for ours, (theirs, default) in _RULE.items()}
    return {"decoder.pattern": [_KINDS[one] for one in types], "decoder.delta_rule": rule}


def _write_kinds(config) -> dict:
    theirs, stack = {ours: kind for kind, ours in _KINDS.items()}, config.decoder
    types = [theirs.get(kind, "full_attention") for kind in stack.kinds]
    rule = (
        {} if stack.delta_rule is None else {key: getattr(stack.delta_rule, ours) for ours, (key, _) in _RULE.items()}
    )
    return {"layer_types": types, **rule}


_TURNED = rope_rule(32768, fraction="partial_rotary_factor", default_fraction=0.25)


def _read_turned(reference: Mapping) -> dict:
    """Without what splits positions by time, height and width: of a text all three are one."""
    said = {key: reference.get(key) for key in ("rope_parameters", "rope_scaling") if reference.get(key)}
    said = {key: {one: x for one, x in given.items() if not one.startswith("mrope_")} for key, given in said.items()}
    return _TURNED.read({**reference, **said})


FAMILY = replace(
    llama.FAMILY,
    name="qwen3_5_text",
    architecture="Qwen3_5TextModel",
    keys={
        path: key
        for path, key in llama.sizes(248320, _LAYERS, 4096, 16, 12288, 32768).items()
        if path not in ("decoder.feed_forward.bias", "decoder.feed_forward.activation")
    },
    fixed={
        **llama.FIXED,
        "decoder.norm.kind": "zero_centred_rms",
        "decoder.feed_forward.activation": "silu",
        "decoder.feed_forward.bias": False,
        "decoder.attention.query_key_norm": "head",
        "decoder.attention.gated": True,
    },
    rules=(
        heads_rule(4, 256, 16, 4096),
        Rule(
            ("layer_types", "full_attention_interval", *(key for key, _ in _RULE.values())), _read_kinds, _write_kinds
        ),
        Rule(_TURNED.keys, _read_turned, _TURNED.write),
        padding_rule(),
        CAUSAL,
    ),
    required={"hidden_act": ("silu",)},
    blocks={
        "decoder": Blocks(
            llama.block,
            {
                **llama.BLOCK,
                **llama.QUERY_KEY_NORMS,
                **fused_parts("self_attn.q_proj", ("query", "gate"), sizes=(1, 1), by="heads"),
                "mixer": "linear_attn",
                "mixer/input": "linear_attn.in_proj_qkv",
                "mixer/convolution": Module("linear_attn.conv1d", by_channel=True),
                "mixer/gate": "linear_attn.in_proj_z",
                "mixer/rate": "linear_attn.in_proj_b",
                "mixer/fading": "linear_attn.in_proj_a",
                "mixer/norm": "linear_attn.norm",
                "mixer/output": "linear_attn.out_proj",
            },
        )
    },
    heads={
        "causal-lm": llama.heads("Qwen3_5")["causal-lm"],
        "text-classification": llama.heads("Qwen3_5Text")["text-classification"],
    },
)
# The text part of a model that reads images, too: it is saved as a `qwen3_5_text`.
WITH_IMAGES = Nested(
    name="qwen3_5",
    family=FAMILY.name,
    key="text_config",
    architectures={"Qwen3_5ForConditionalGeneration": "Qwen3_5ForCausalLM", "Qwen3_5Model": FAMILY.architecture},
    renamed={"model.language_model.": "model."},
    left_out=("model.visual.", "mtp."),
)
