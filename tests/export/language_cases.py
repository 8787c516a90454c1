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
    "partial": {"decoder__attention__rotary": Rotary(fraction=0.5), "decoder__norm__placement": "parallel"},
    "window": {"decoder__attention": {"sliding": {"window": 9}, "full": {}}, "decoder__pattern": ("sliding", "full")},
    "alibi": {
        "decoder__attention__scores": Scores("alibi"),
        "decoder__attention__rotary": None,
        "decoder__attention__key_value_heads": None,
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
    ids = list(prompt)
    for _ in range(count):
        ids.append(_likeliest(model, ids)[-1])
    return ids[len(prompt) :]


def confirmed(model, prompt, ids):
    """What Keras, without a cache and in one call, finds most likely at the place of each of `ids` behind a prompt.

    They are `ids` themselves where those are its greedy continuation: the first follows from the prompt, the second
    from the prompt and the first, and so on.
    """
    return _likeliest(model, [*prompt, *ids])[len(prompt) - 1 : -1]


def _likeliest(model, ids):
    batch = {"token_ids": np.array([ids], "int32"), "padding_mask": np.ones((1, len(ids)), "int32")}
    return np.asarray(model(batch))[0].argmax(axis=-1).tolist()


def chat_tokenizer():
    """A byte-level BPE tokenizer with an end token and a chat template."""
    tokenizer = Tokenizer.train_byte_level_bpe(TEXTS, 300, ["<|endoftext|>", "<|user|>", "<|assistant|>"])
    parts = json.loads(tokenizer.to_json())
    parts["config"]["chat_template"] = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return Tokenizer.from_json(json.dumps(parts))
