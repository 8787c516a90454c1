"""Tiny decoders that the export tests and those of the clients share."""

import json

import numpy as np
from export_cases import TEXTS, VOCABULARY_SIZE, perturb

import tfxformer
from tfxformer import tasks
from tfxformer.layers import Rotary, Scores
from tfxformer.models.config import (
    AttentionConfig,
    FeedForwardConfig,
    HeadConfig,
    NormConfig,
    StackConfig,
    TransformerConfig,
)
from tfxformer.text import Tokenizer

# What the families differ in, as far as a file sees it.
KINDS = {
    "llama": {},
    "untied": {"heads": HeadConfig(tied=False)},
    "gpt2": {
        "decoder__norm__kind": "layer",
        "decoder__attention__rotary": None,
        "decoder__feed_forward__activation": "gelu_new",
        "decoder__feed_forward__gated": False,
        "decoder__attention__key_value_heads": None,
        "decoder__attention__bias": True,
        "decoder__feed_forward__bias": True,
    },
    "partial, parallel and windows": {
        "decoder__attention__rotary": Rotary(fraction=0.5),
        "decoder__norm__placement": "parallel",
        "decoder__attention": {"sliding": {"window": 9}, "full": {}},
        "decoder__pattern": ("sliding", "full"),
    },
    "normed heads, capped, sandwich": {
        "decoder__norm__kind": "zero_centred_rms",
        "decoder__norm__placement": "sandwich",
        "decoder__embedding_scale": 48**0.5,
        "decoder__attention": {
            "sliding": {"window": 9, "rotary": Rotary(base=100.0), "query_key_norm": "head", "soft_cap": 3.0},
            "full": {"query_key_norm": "head", "soft_cap": 3.0, "scale": 0.5},
            "nope": {"rotary": None, "query_key_norm": "head"},
        },
        "decoder__pattern": ("sliding", "full", "nope"),
        "decoder__num_layers": 3,
        "heads__logit_soft_cap": 8.0,
    },
    "one plain norm, one clipped head of keys, a biased head": {
        "heads": HeadConfig(tied=False, logits_bias=True),
        "decoder__norm__kind": "plain_layer",
        "decoder__attention__clip": 0.5,
        "decoder__norm__placement": "shared",
        "decoder__attention__key_value_heads": 1,
        "decoder__attention__scale": 1.0,
    },
    "normed outputs, scaled halves, longrope": {
        "decoder__norm__placement": "output",
        "decoder__residual_scale": 0.3,
        "decoder__attention__query_key_norm": "whole",
        "decoder__attention__rotary": Rotary(
            kind="longrope",
            factor=4.0,
            original_max_positions=64,
            short_factors=(1.0, 1.0, 2.0, 3.0),
            long_factors=(2.0, 3.0, 4.0, 5.0),
        ),
        "heads__logit_scale": 0.5,
    },
    "convolutions": {"decoder__convolution": 3, "decoder__pattern": ("convolution", "full")},
    "delta rule, gated": {
        "decoder__delta_rule": {"key_heads": 2, "value_heads": 4, "key_width": 6, "value_width": 5},
        "decoder__pattern": ("delta_rule", "full"),
        "decoder__attention__gated": True,
    },
    "alibi": {
        "decoder__attention__scores": Scores("alibi"),
        "decoder__attention__rotary": None,
        "decoder__attention__key_value_heads": None,
    },
    "rounded alibi": {
        "decoder__attention__scores": Scores("alibi", scale=8**-0.5, rounded=True),
        "decoder__attention__rotary": None,
    },
}


def config(kind="llama", **changes):
    """A two-layer decoder of 64 positions, 48 wide: rotary positions, grouped heads, a gated feed-forward half."""
    stack = StackConfig(
        2, 48, AttentionConfig(6, 2, rotary=Rotary(), bias=False),
        FeedForwardConfig(64, "silu", gated=True, bias=False),
        NormConfig("pre", "rms", 1e-5, embedding=False, final=True),
        max_positions=64, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    llama = TransformerConfig("llama", VOCABULARY_SIZE, decoder=stack)
    return llama.replace(**{**KINDS[kind], **changes})


def causal_lm(kind="llama", tokenizer=None, seed=0, **changes):
    """A decoder of `config(...)` with random values in every variable, large enough that no two logits are close."""
    model = tasks.CausalLM(tfxformer.build(config(kind, **changes)), tokenizer=tokenizer)
    return perturb(model, seed, kernels=0.2)


def greedy(model, prompt, count):
    """The most likely continuation by Keras without a cache: list of ids."""
    return greedy_rows(model, [prompt], count)[0]


def greedy_rows(model, prompts, count):
    """The most likely continuation of each prompt by Keras without a cache, all of them in one batch."""
    rows = [list(prompt) for prompt in prompts]
    for _ in range(count):
        for row, found in zip(rows, _likeliest(model, rows), strict=True):
            row.append(int(found[len(row) - 1]))
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


def confirmed(model, prompt, ids):
    """What Keras, without a cache and in one call, finds most likely at the place of each of `ids` behind a prompt.

    They are `ids` themselves where those are its greedy continuation: the first follows from the prompt, the second
    from the prompt and the first, and so on.
    """
    return _likeliest(model, [[*prompt, *ids]])[0, len(prompt) - 1 : -1].tolist()


def _likeliest(model, rows):
    """The likeliest next token at each place of each row, which are padded at the right: [rows, longest]."""
    batch = {name: np.zeros((len(rows), max(map(len, rows))), "int32") for name in ("token_ids", "padding_mask")}
    for index, row in enumerate(rows):
        batch["token_ids"][index, : len(row)], batch["padding_mask"][index, : len(row)] = row, 1
    return np.asarray(model(batch)).argmax(axis=-1)


def chat_tokenizer():
    """A byte-level BPE tokenizer with an end token and a chat template."""
    tokenizer = Tokenizer.train_byte_level_bpe(TEXTS, 300, ["<|endoftext|>", "<|user|>", "<|assistant|>"])
    parts = json.loads(tokenizer.to_json())
    parts["config"]["chat_template"] = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return Tokenizer.from_json(json.dumps(parts))
