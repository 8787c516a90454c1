"""Seed-OSS (ByteDance Seed, 2025): a Llama with biases on queries, keys and values, and wide heads."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Key, Rule
from tfxformer.checkpoints.rope import rope_rule


def _read_biases(reference: Mapping) -> dict:
    return {
        "decoder.attention.bias": reference.get("attention_bias", True),
        "decoder.attention.output_bias": reference.get("attention_out_bias", False),
    }


def _write_biases(config) -> dict:
    kind = config.decoder.attention_of(0)
    return {
        "attention_bias": kind.bias,
        "attention_out_bias": kind.bias if kind.output_bias is None else kind.output_bias,
    }


FAMILY = replace(
    llama.FAMILY,
    name="seed_oss",
    architecture="SeedOssModel",
    keys={
        **{
            path: key
            for path, key in llama.sizes(155136, 64, 4096, 80, 27648, 524288).items()
            if path != "decoder.attention.bias"
        },
        "decoder.attention_dropout": Key("attention_dropout", 0.1),
        "decoder.dropout": Key("residual_dropout", 0.1),
    },
    fixed={path: value for path, value in llama.FIXED.items() if path != "decoder.dropout"},
    rules=(
        heads_rule(8, 128, 80),
        Rule(("attention_bias", "attention_out_bias"), _read_biases, _write_biases),
        rope_rule(524288),
        padding_rule(pad=1, eos=2),
        CAUSAL,
    ),
    heads=llama.heads_with_answers("SeedOss"),
)
