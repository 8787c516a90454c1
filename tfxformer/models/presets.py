"""Named architectures, as data; weights come from a checkpoint."""

from __future__ import annotations

from tfxformer.layers import Rotary, Scores
from tfxformer.layers.attention.disentangled import TERMS
from tfxformer.models.config import (
    AttentionConfig,
    FeedForwardConfig,
    HeadConfig,
    NormConfig,
    StackConfig,
    TransformerConfig,
)


def _bert(num_layers: int, hidden_size: int, num_heads: int, **changes) -> TransformerConfig:
    config = TransformerConfig(
        family="bert",
        vocabulary_size=30522,
        encoder=StackConfig(num_layers, hidden_size, num_heads, 4 * hidden_size),
        heads=HeadConfig(pooler=True),
        token_types=2,
    )
    return config.replace(**changes)


_ROBERTA = {
    "family": "roberta",
    "vocabulary_size": 50265,
    "token_types": 1,
    "padding_id": 1,
    "encoder__max_positions": 514,
    "encoder__position_mode": "nonpad_cumsum",
    "encoder__norm__epsilon": 1e-5,
    "heads": HeadConfig(classifier_activation="tanh", masked_lm_activation="gelu"),
}
_MPNET = {
    **_ROBERTA,
    "family": "mpnet",
    "vocabulary_size": 30527,
    "token_types": 0,
    "encoder__positions": "learned",
    "encoder__attention__scores": Scores("relative"),
    "heads": HeadConfig(pooler=True, classifier_activation="tanh", masked_lm_activation="gelu"),
}
_NOMIC = {
    "family": "nomic_bert",
    "vocabulary_size": 30528,
    "encoder__max_positions": 2048,
    "encoder__dropout": 0.0,
    "encoder__attention_dropout": 0.0,
    "encoder__feed_forward__activation": "silu",
    "encoder__feed_forward__gated": True,
    "encoder__feed_forward__bias": False,
    "encoder__attention__bias": False,
    "encoder__attention__rotary": Rotary(1000.0),
}
_GTE = {
    "family": "gte",
    "vocabulary_size": 250048,
    "token_types": 1,
    "padding_id": 1,
    "encoder__max_positions": 8192,
    "encoder__attention_dropout": 0.0,
    "encoder__feed_forward__gated": True,
    "encoder__feed_forward__bias": False,
    "encoder__feed_forward__output_bias": True,
    "encoder__attention__rotary": Rotary(160000.0),
    "heads": HeadConfig(pooler=True, masked_lm_activation="gelu"),
}
_DEBERTA_V3 = {
    "family": "deberta-v2",
    "vocabulary_size": 128100,
    "token_types": 0,
    "encoder__norm__epsilon": 1e-7,
    "encoder__attention__scale": (64 * 3) ** -0.5,  # heads are 64 wide, and three terms make a score
    "encoder__attention__scores": Scores("disentangled", 256, 512, terms=TERMS, normed=True),
    "heads": HeadConfig(classifier_activation="gelu"),
}
_DEBERTA = {
    **_DEBERTA_V3,
    "family": "deberta",
    "vocabulary_size": 50265,
    "encoder__attention__scores": Scores("disentangled", 0, 512, terms=TERMS, own_projections=True),
    "encoder__attention__key_bias": False,
}
_MODERNBERT = {
    "family": "modernbert",
    "vocabulary_size": 50368,
    "padding_id": 50283,
    "token_types": 0,
    "encoder__max_positions": 8192,
    "encoder__dropout": 0.0,
    "encoder__embedding_dropout": 0.0,
    "encoder__attention_dropout": 0.0,
    "encoder__feed_forward__gated": True,
    "encoder__feed_forward__bias": False,
    "encoder__norm": NormConfig("pre", epsilon=1e-5, bias=False, final=True, first=False),
    "encoder__attention__bias": False,
    "encoder__attention": {"full": {"rotary": Rotary(160000.0)}, "sliding": {"rotary": Rotary(), "window": 64}},
    "encoder__pattern": ("full", "sliding", "sliding"),
    "heads": HeadConfig(
        classifier_activation="gelu",
        classifier_dropout=0.0,
        masked_lm_activation="gelu",
        transform=True,
        transform_bias=False,
    ),
}
_ALBERT = {
    "family": "albert",
    "vocabulary_size": 30000,
    "embedding_size": 128,
    "embedding_projection": True,
    "encoder__feed_forward__activation": "gelu_new",
    "encoder__layer_groups": 1,
    "encoder__dropout": 0.0,
    "encoder__attention_dropout": 0.0,
    "heads": HeadConfig(pooler=True),
}
_DISTILBERT = {
    "family": "distilbert",
    "token_types": 0,
    "heads": HeadConfig(classifier_activation="relu", classifier_dropout=0.2),
}
_ELECTRA = {"family": "electra", "heads": HeadConfig(classifier_activation="gelu", masked_lm_activation="gelu")}


def _gpt(
    num_layers: int, hidden_size: int, num_heads: int, *, family: str, vocabulary_size: int, **changes
) -> TransformerConfig:
    """A decoder with pre-norm blocks, four times as wide inside, without dropout."""
    config = TransformerConfig(
        family=family,
        vocabulary_size=vocabulary_size,
        decoder=StackConfig(
            num_layers,
            hidden_size,
            num_heads,
            4 * hidden_size,
            NormConfig("pre", epsilon=1e-5, embedding=False, final=True),
            dropout=0.0,
            attention_dropout=0.0,
        ),
        heads=HeadConfig(classifier_bias=False),
    )
    return config.replace(**changes)


_GPT2 = {
    "family": "gpt2",
    "vocabulary_size": 50257,
    "padding_id": 50256,
    "decoder__feed_forward__activation": "gelu_new",
    "decoder__max_positions": 1024,
    "decoder__dropout": 0.1,
    "decoder__attention_dropout": 0.1,
    "decoder__embedding_dropout": 0.1,
}
_SCRATCH = {
    "family": "gpt2",
    "vocabulary_size": 4096,
    "decoder__feed_forward__activation": "gelu_new",
    "decoder__embedding_dropout": 0.0,
}
_PYTHIA = {
    "family": "gpt_neox",
    "vocabulary_size": 50304,
    "heads__tied": False,
    "decoder__norm__placement": "parallel",
    "decoder__attention__rotary": Rotary(fraction=0.25),
    "decoder__max_positions": 2048,
}
_OPT = {
    "family": "opt",
    "vocabulary_size": 50272,
    "padding_id": 1,
    "embedding_projection_bias": False,
    "decoder__feed_forward__activation": "relu",
    "decoder__max_positions": 2050,
    "decoder__position_offset": 2,
    "decoder__dropout": 0.1,
    "decoder__embedding_dropout": 0.0,
}
_BLOOM = {
    "family": "bloom",
    "vocabulary_size": 250880,
    "padding_id": 3,
    "decoder__norm__embedding": True,
    "decoder__embedding_dropout": 0.0,
    "decoder__feed_forward__activation": "gelu_new",
    "decoder__attention__scores": Scores("alibi"),
    "decoder__max_positions": 2048,
}


def _llama(layers: int, size: int, heads: int, groups: int, inner: int, base: float, **changes) -> TransformerConfig:
    """A decoder with RMS norms, grouped heads, rotary positions and a gated feed-forward half."""
    values = {
        "family": "llama",
        "decoder__attention__key_value_heads": groups,
        "decoder__feed_forward__size": inner,
        "decoder__feed_forward__activation": "silu",
        "decoder__feed_forward__gated": True,
        "decoder__norm__kind": "rms",
        "decoder__attention__bias": False,
        "decoder__feed_forward__bias": False,
        "decoder__attention__rotary": Rotary(base=base),
    }
    return _gpt(layers, size, heads, **{**values, **changes})


_SMOLLM2 = {"vocabulary_size": 49152, "decoder__max_positions": 8192}
_TINYLLAMA = {
    "vocabulary_size": 32000,
    "padding_id": 2,
    "heads__tied": False,
    "decoder__max_positions": 2048,
}
_LLAMA3 = {
    "vocabulary_size": 128256,
    "padding_id": 128001,
    "decoder__max_positions": 131072,
    "decoder__attention__rotary": Rotary(500000.0, kind="llama3", factor=32.0, original_max_positions=8192),
}
_MISTRAL = {
    **_TINYLLAMA,
    "family": "mistral",
    "decoder__max_positions": 32768,
    "decoder__attention__window": 4096,
}
_QWEN2 = {
    "family": "qwen2",
    "vocabulary_size": 151936,
    "padding_id": 151643,
    "decoder__attention__bias": True,
    "decoder__attention__output_bias": False,
    "decoder__norm__epsilon": 1e-6,
    "decoder__max_positions": 32768,
}


def _both(stack: StackConfig, **changes) -> TransformerConfig:
    """An encoder and a decoder of one shape."""
    return TransformerConfig(encoder=stack, decoder=stack, **changes)


def _t5(num_layers: int, hidden_size: int, heads: int, inner: int, gated: bool) -> TransformerConfig:
    """T5's shape, of version 1.0, or gated and with a head of its own, of version 1.1."""
    return _both(
        StackConfig(
            num_layers,
            hidden_size,
            AttentionConfig(heads, width=64, scale=1.0, scores=Scores("relative"), bias=False),
            FeedForwardConfig(inner, "gelu_new" if gated else "relu", gated, bias=False),
            NormConfig("pre", "rms", 1e-6, embedding=False, final=True),
        ),
        family="t5",
        vocabulary_size=32128,
        heads=HeadConfig(classifier_dropout=0.0, tied=not gated, logit_scale=1.0 if gated else hidden_size**-0.5),
        initializer_range=1.0,
        initializer="fan_in",
    )


def _bart(num_layers: int, hidden_size: int, heads: int) -> TransformerConfig:
    return _both(
        StackConfig(
            num_layers,
            hidden_size,
            heads,
            4 * hidden_size,
            NormConfig("post", epsilon=1e-5),
            max_positions=1026,
            position_offset=2,
            attention_dropout=0.0,
        ),
        family="bart",
        vocabulary_size=50265,
        padding_id=1,
        heads=HeadConfig(classifier_dropout=0.0, logits_bias=True),
    )


def _original(num_layers: int, hidden_size: int, heads: int, dropout: float = 0.1) -> TransformerConfig:
    """The Transformer of 2017, tables shared; a Marian to transformers."""
    return _both(
        StackConfig(
            num_layers,
            hidden_size,
            heads,
            FeedForwardConfig(4 * hidden_size, "relu"),
            NormConfig("post", epsilon=1e-5, embedding=False),
            positions="sinusoidal",
            embedding_scale=hidden_size**0.5,
            dropout=dropout,
            attention_dropout=0.0,
        ),
        family="marian",
        vocabulary_size=37000,
        heads=HeadConfig(classifier_dropout=0.0, logits_bias=True),
    )


# Name -> config of an architecture, for `build(name)`.
PRESETS: dict[str, TransformerConfig] = {
    # Turc et al., 2019, arXiv:1908.08962
    "bert-tiny": _bert(2, 128, 2),
    "bert-mini": _bert(4, 256, 4),
    "bert-small": _bert(4, 512, 8),
    "bert-medium": _bert(8, 512, 8),
    # Devlin et al., 2018, arXiv:1810.04805
    "bert-base": _bert(12, 768, 12),
    "bert-large": _bert(24, 1024, 16),
    # Wang et al., 2020, arXiv:2002.10957
    "minilm-l6": _bert(6, 384, 12),
    "minilm-l12": _bert(12, 384, 12),
    # Sanh et al., 2019, arXiv:1910.01108
    "distilbert-base": _bert(6, 768, 12, **_DISTILBERT),
    # Liu et al., 2019, arXiv:1907.11692; Conneau et al., 2019, arXiv:1911.02116
    "roberta-base": _bert(12, 768, 12, **_ROBERTA),
    "xlm-roberta-base": _bert(12, 768, 12, **{**_ROBERTA, "family": "xlm-roberta", "vocabulary_size": 250002}),
    # Song et al., 2020, arXiv:2004.09297
    "mpnet-base": _bert(12, 768, 12, **_MPNET),
    # Nussbaum et al., 2024, arXiv:2402.01613; Zhang et al., 2024, arXiv:2407.19669
    "nomic-bert-base": _bert(12, 768, 12, **_NOMIC),
    "gte-base": _bert(12, 768, 12, **_GTE),
    # He et al., 2020, arXiv:2006.03654, and 2021, arXiv:2111.09543
    "deberta-base": _bert(12, 768, 12, **_DEBERTA),
    "deberta-v3-small": _bert(6, 768, 12, **_DEBERTA_V3),
    "deberta-v3-base": _bert(12, 768, 12, **_DEBERTA_V3),
    # Warner et al., 2024, arXiv:2412.13663
    "modernbert-base": _bert(22, 768, 12, **_MODERNBERT, encoder__feed_forward__size=1152),
    "modernbert-large": _bert(28, 1024, 16, **_MODERNBERT, encoder__feed_forward__size=2624),
    # Lan et al., 2019, arXiv:1909.11942
    "albert-base": _bert(12, 768, 12, **_ALBERT),
    # Clark et al., 2020, arXiv:2003.10555
    "electra-small": _bert(12, 256, 4, **_ELECTRA, embedding_size=128),
    "electra-base": _bert(12, 768, 12, **_ELECTRA),
    # To be trained from scratch, with a vocabulary of its own: nanoGPT's shapes for a CPU and for one GPU. GPT-2's
    # initial 0.02 at 768 wide, times sqrt(768 / width): from 0.02 itself gpt-nano stayed 0.13 nats a character behind.
    "gpt-nano": _gpt(4, 128, 4, **_SCRATCH, decoder__max_positions=64, initializer_range=0.05),
    "gpt-mini": _gpt(6, 384, 6, **_SCRATCH, decoder__max_positions=256, initializer_range=0.028),
    # Radford et al., 2019
    "gpt2": _gpt(12, 768, 12, **_GPT2),
    "gpt2-medium": _gpt(24, 1024, 16, **_GPT2),
    "gpt2-large": _gpt(36, 1280, 20, **_GPT2),
    # Biderman et al., 2023, arXiv:2304.01373
    "pythia-70m": _gpt(6, 512, 8, **_PYTHIA),
    "pythia-160m": _gpt(12, 768, 12, **_PYTHIA),
    "pythia-410m": _gpt(24, 1024, 16, **_PYTHIA),
    # Zhang et al., 2022, arXiv:2205.01068
    "opt-125m": _gpt(12, 768, 12, **_OPT),
    # Workshop et al., 2022, arXiv:2211.05100
    "bloom-560m": _gpt(24, 1024, 16, **_BLOOM),
    # Allal et al., 2025, arXiv:2502.02737
    "smollm2-135m": _llama(30, 576, 9, 3, 1536, 100000.0, **_SMOLLM2),
    "smollm2-360m": _llama(32, 960, 15, 5, 2560, 100000.0, **_SMOLLM2),
    # Zhang et al., 2024, arXiv:2401.02385
    "tinyllama-1.1b": _llama(22, 2048, 32, 4, 5632, 10000.0, **_TINYLLAMA),
    # Grattafiori et al., 2024, arXiv:2407.21783
    "llama-3.2-1b": _llama(16, 2048, 32, 8, 8192, 500000.0, **_LLAMA3),
    # Jiang et al., 2023, arXiv:2310.06825
    "mistral-7b": _llama(32, 4096, 32, 8, 14336, 10000.0, **_MISTRAL),
    # Yang et al., 2024, arXiv:2412.15115
    "qwen2.5-0.5b": _llama(24, 896, 14, 2, 4864, 1000000.0, **_QWEN2),
    # Vaswani et al., 2017, arXiv:1706.03762; "transformer-mini" to be trained on a CPU
    "transformer-mini": _original(3, 256, 4),
    "transformer-base": _original(6, 512, 8),
    "transformer-big": _original(6, 1024, 16, dropout=0.3),
    # Raffel et al., 2019, arXiv:1910.10683; Shazeer, 2020, arXiv:2002.05202
    "t5-small": _t5(6, 512, 8, 2048, gated=False),
    "t5-base": _t5(12, 768, 12, 3072, gated=False),
    "flan-t5-small": _t5(8, 512, 6, 1024, gated=True),
    "flan-t5-base": _t5(12, 768, 12, 2048, gated=True),
    # Lewis et al., 2019, arXiv:1910.13461
    "bart-base": _bart(6, 768, 12),
    "bart-large": _bart(12, 1024, 16),
}


def preset(name: str) -> TransformerConfig:
    """The named architecture.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(
            f"Unknown preset {name!r}; known: {', '.join(PRESETS)}. For weights, use from_pretrained(folder or hub id)."
        )
    return PRESETS[name]
