"""BART (Lewis et al., 2019, arXiv:1910.13461) and its kin: PLBART, mBART, Pegasus, Marian, M2M-100, Blenderbots."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.gpt.opt import BLOCK  # fairseq named both
from tfxformer.checkpoints.families.encoder_decoders.t5 import STACKS, both
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.layout import Module
from tfxformer.layers.attention.positions import sinusoids

_UNUSED_ROWS = 2  # of the position table


def positions_rule(usual: int, unused: int) -> Rule:
    """The rule of `max_position_embeddings`, `usual` where it is absent; a table has `unused` rows besides."""

    def read(reference: Mapping) -> dict:
        return both({"max_positions": (reference.get("max_position_embeddings") or usual) + unused})

    def write(config) -> dict:
        return {"max_position_embeddings": config.encoder.max_positions - unused}

    return Rule(("max_position_embeddings",), read, write)


def size_key(usual: int) -> Key:
    """The width of both stacks, which transformers takes by another name, too."""
    return Key("d_model", usual, ("hidden_size",))


def encoder_key(name: str, usual: int) -> Key:
    """A key of the encoder, which transformers takes by a name without it, too."""
    others = {"layers": ("num_hidden_layers",), "attention_heads": ("num_attention_heads",)}
    return Key(f"encoder_{name}", usual, others.get(name, ()))


def sizes_keys(layers: tuple[int, int], heads: int, inner: int) -> dict[str, Key]:
    """The numbers of layers of encoder and decoder, the heads and inner width of both, where they are absent."""
    keys = {}
    for ours, theirs, usual in (
        ("num_layers", "layers", layers),
        ("attention.heads", "attention_heads", (heads, heads)),
        ("feed_forward.size", "ffn_dim", (inner, inner)),
    ):
        keys |= {
            f"encoder.{ours}": encoder_key(theirs, usual[0]),
            f"decoder.{ours}": Key(f"decoder_{theirs}", usual[1]),
        }
    return keys


def scale_rule(usual: bool, size: Key) -> Rule:
    """The rule of `scale_embedding`, by the root of the width; `usual` is what an absent one means."""

    def read(reference: Mapping) -> dict:
        scaled = reference.get("scale_embedding")
        scaled = usual if scaled is None else scaled
        return both({"embedding_scale": float(size.read(reference)) ** 0.5 if scaled else 1.0})

    return Rule(("scale_embedding",), read, lambda config: {"scale_embedding": config.encoder.embedding_scale != 1.0})


KEYS = {
    "vocabulary_size": Key("vocab_size", 50265),
    "padding_id": Key("pad_token_id", 1),
    "initializer_range": Key("init_std", 0.02),
    "heads.tied": Key("tie_word_embeddings", True),
    "heads.classifier_dropout": Key("classifier_dropout", 0.0),
    **both(
        {
            "hidden_size": size_key(1024),
            "feed_forward.activation": Key("activation_function", "gelu"),
            "dropout": Key("dropout", 0.1),
            "attention_dropout": Key("attention_dropout", 0.0),
        }
    ),
    **sizes_keys((12, 12), heads=16, inner=4096),
}
POST = {"norm.placement": "post", "norm.final": False}
PRE = {"norm.placement": "pre", "norm.final": True}
BOTH_FIXED = {"norm.epsilon": 1e-5, "norm.embedding": True, "position_offset": _UNUSED_ROWS}
BIAS = {"heads.logits_bias": True}
WRAPS = {"heads.classifier_wraps": True}

DECODER_BLOCK = {
    **BLOCK,
    **{
        ours.replace("self_attention", "cross_attention"): theirs.replace("self_attn", "encoder_attn")
        for ours, theirs in BLOCK.items()
        if ours.startswith("self_attention")
    },
    "cross_attention_norm": "encoder_attn_layer_norm",
}


def heads(architecture: str, bias: bool = True) -> dict[str, Head]:
    """The head that writes, of the class of that name; with a bias for each token or without."""
    modules: dict[str, str | Module] = {"language_model_head": "lm_head"}
    if bias:
        modules["final_logits_bias"] = Module("final_logits_bias", buffer=True)
    return {"seq2seq-lm": Head(architecture, modules)}


def classifier(architecture: str) -> dict[str, Head]:
    """The head that classifies, of the class of that name."""
    modules = {"classifier/dense": "classification_head.dense", "classifier/output": "classification_head.out_proj"}
    return {"text-classification": Head(architecture, modules)}


FAMILY = Family(
    name="bart",
    prefix="model.",
    architecture="BartModel",
    keys=KEYS,
    fixed={**both({**BOTH_FIXED, **POST}), **BIAS},
    rules=(positions_rule(1024, _UNUSED_ROWS), scale_rule(False, size_key(1024))),
    modules={
        "token_embedding": "shared",
        **{f"{stack}_position_embedding": f"{stack}.embed_positions" for stack in STACKS},
        **{f"{stack}_embedding_norm": f"{stack}.layernorm_embedding" for stack in STACKS},
        **{f"{stack}_final_norm": f"{stack}.layer_norm" for stack in STACKS},
    },
    blocks={
        "encoder": Blocks(lambda config, index: f"encoder.layers.{index}", BLOCK),
        "decoder": Blocks(lambda config, index: f"decoder.layers.{index}", DECODER_BLOCK),
    },
    heads={**heads("BartForConditionalGeneration"), **classifier("BartForSequenceClassification")},
    other_heads=("classification_head", "qa_outputs"),
    # Older files repeat the table for each stack.
    tied={f"{stack}.embed_tokens.weight": "shared.weight" for stack in STACKS},
)
PLBART = replace(
    FAMILY,
    name="plbart",
    architecture="PLBartModel",
    keys={
        **KEYS,
        "vocabulary_size": Key("vocab_size", 50005),
        "initializer_range": Key("init_std", 0.02, ("initializer_range",)),
        **both({"hidden_size": size_key(768), "attention_dropout": Key("attention_dropout", 0.1)}),
        **sizes_keys((6, 6), heads=12, inner=3072),
    },
    rules=(positions_rule(1024, _UNUSED_ROWS), scale_rule(True, size_key(768))),
    fixed={**FAMILY.fixed, **WRAPS},
    heads={**heads("PLBartForConditionalGeneration"), **classifier("PLBartForSequenceClassification")},
)
MBART = replace(
    FAMILY,
    name="mbart",
    architecture="MBartModel",
    fixed={**both({**BOTH_FIXED, **PRE}), **BIAS, **WRAPS},
    heads={**heads("MBartForConditionalGeneration"), **classifier("MBartForSequenceClassification")},
)


def computed_positions(kind: str) -> dict:
    """The tables of positions that files may hold and the model computes."""
    return {
        f"{stack}.embed_positions.weight": lambda config, stack=stack: sinusoids(
            config.stacks[stack].max_positions, config.hidden_size, kind, config.padding_id
        )
        for stack in STACKS
    }


SINUSOIDAL = {"norm.epsilon": 1e-5, "norm.embedding": False, "positions": "sinusoidal"}
PEGASUS = replace(
    FAMILY,
    name="pegasus",
    architecture="PegasusModel",
    keys={**KEYS, "padding_id": Key("pad_token_id", 0)},
    fixed={**both({**SINUSOIDAL, **PRE}), **BIAS},
    rules=(positions_rule(1024, 0), scale_rule(False, size_key(1024))),
    heads=heads("PegasusForConditionalGeneration"),
    computed=computed_positions("sinusoidal"),
    writes_computed=True,
)


_MARIAN_VOCABULARY = Key("vocab_size", 58101)


def _marian_vocabularies(reference: Mapping) -> dict:
    # With one table for both stacks transformers does not look at the decoder's number.
    sources = _MARIAN_VOCABULARY.read(reference)
    if reference.get("share_encoder_decoder_embeddings") is not False:
        return {"vocabulary_size": sources, "source_vocabulary_size": None}
    return {"vocabulary_size": reference.get("decoder_vocab_size") or sources, "source_vocabulary_size": sources}


MARIAN = replace(
    FAMILY,
    name="marian",
    architecture="MarianModel",
    keys={**KEYS, "vocabulary_size": _MARIAN_VOCABULARY, "padding_id": Key("pad_token_id", 58100)},
    fixed={**both({**SINUSOIDAL, **POST}), **BIAS},
    rules=(
        positions_rule(1024, 0),
        scale_rule(False, size_key(1024)),
        Rule(
            ("vocab_size", "decoder_vocab_size", "share_encoder_decoder_embeddings"),
            _marian_vocabularies,
            lambda config: {
                "vocab_size": config.read_vocabulary_size,
                "decoder_vocab_size": config.vocabulary_size,
                "share_encoder_decoder_embeddings": config.source_vocabulary_size is None,
            },
        ),
    ),
    required={"share_encoder_decoder_embeddings": (True, False, None)},
    own_tables={"token_embedding": "decoder.embed_tokens", "encoder_token_embedding": "encoder.embed_tokens"},
    heads=heads("MarianMTModel"),
    computed=computed_positions("sinusoidal"),
)


def _fairseq_positions(reference: Mapping) -> dict:
    # Positions begin behind the padding's id, and the decoder counts them by slots.
    padding = reference.get("pad_token_id")
    first = (1 if padding is None else padding) + 1
    rows = (reference.get("max_position_embeddings") or 1024) + first
    return {"padding_id": first - 1, "decoder.position_offset": first, **both({"max_positions": rows})}


M2M_100 = replace(
    FAMILY,
    name="m2m_100",
    architecture="M2M100Model",
    keys={
        **KEYS,
        "vocabulary_size": Key("vocab_size", 128112),
        **both(
            {
                "feed_forward.activation": Key("activation_function", "relu"),
                "attention_dropout": Key("attention_dropout", 0.1),
            }
        ),
    },
    fixed={
        **both({**SINUSOIDAL, "positions": "sinusoidal_fairseq", **PRE}),
        "encoder.position_mode": "nonpad_cumsum",
    },
    rules=(
        Rule(
            ("max_position_embeddings", "pad_token_id"),
            _fairseq_positions,
            lambda config: {
                "max_position_embeddings": config.decoder.max_positions - config.decoder.position_offset,
                "pad_token_id": config.padding_id,
            },
        ),
        scale_rule(True, size_key(1024)),
    ),
    heads=heads("M2M100ForConditionalGeneration", bias=False),
    computed=computed_positions("sinusoidal_fairseq"),
)


BLENDERBOT = replace(
    FAMILY,
    name="blenderbot",
    architecture="BlenderbotModel",
    keys={
        **KEYS,
        "vocabulary_size": Key("vocab_size", 8008),
        "padding_id": Key("pad_token_id", 0),
        **both({"hidden_size": size_key(2560)}),
        **sizes_keys((2, 24), heads=32, inner=10240),
    },
    fixed={**both({"norm.epsilon": 1e-5, "norm.embedding": False, **PRE}), **BIAS},
    rules=(positions_rule(128, 0), scale_rule(False, size_key(2560))),
    heads=heads("BlenderbotForConditionalGeneration"),
)


def _scaled_source(reference: Mapping) -> dict:
    # transformers scales what the encoder reads alone: the decoder's norm takes the scale out again.
    return {"encoder.embedding_scale": scale_rule(False, size_key(512)).read(reference)["encoder.embedding_scale"]}


# BART with other sizes, but for the decoder, which adds positions behind the norm of its embeddings.
BLENDERBOT_SMALL = replace(
    FAMILY,
    name="blenderbot-small",
    architecture="BlenderbotSmallModel",
    keys={
        **KEYS,
        "padding_id": Key("pad_token_id", 0),
        **both({"hidden_size": size_key(512)}),
        **sizes_keys((8, 8), heads=16, inner=2048),
    },
    fixed={
        **both({"norm.epsilon": 1e-5, "norm.embedding": True, **POST}),
        "decoder.norm.positions": False,
        **BIAS,
    },
    rules=(positions_rule(512, 0), replace(scale_rule(False, size_key(512)), read=_scaled_source)),
    heads=heads("BlenderbotSmallForConditionalGeneration"),
)
