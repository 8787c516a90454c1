"""GPT-Neo (Black et al., 2021; TinyStories, arXiv:2305.07759): every second layer has a window, no score a scale."""

from collections.abc import Mapping
from itertools import islice

from tfxformer.checkpoints.families.decoders.shared import CAUSAL, HEADS_KEYS, PRE_NORM, answers, padding_rule
from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError

_GLOBAL, _LOCAL = "global", "local"
_LAYERS, _SIZE = Key("num_layers", 24, ("num_hidden_layers",)), Key("hidden_size", 2048)


def _kinds(reference: Mapping) -> list[str]:
    """The kind of attention of each layer, by `attention_types`: [[kinds, how often], ...]."""
    said = reference.get("attention_types") or [[[_GLOBAL, _LOCAL], 12]]
    layers = _LAYERS.read(reference)
    try:  # no more than there are layers, whatever a file says
        kinds = list(islice((kind for kinds, count in said for _ in range(count) for kind in kinds), layers + 1))
    except (TypeError, ValueError):
        kinds = []
    if not set(kinds) <= {_GLOBAL, _LOCAL} or len(kinds) != layers:
        raise CheckpointError(
            f"config.json says attention_types={said!r} for {layers} layers; tfxformer wants [[kinds, how often], ...] "
            f"that give each {_GLOBAL!r} or {_LOCAL!r}."
        )
    return kinds


def _read_windows(reference: Mapping) -> dict:
    kinds, window = _kinds(reference), reference.get("window_size", 256)
    if len(set(kinds)) == 1:
        return {"decoder.attention.window": window if kinds[0] == _LOCAL else None}
    return {
        f"decoder.attention.{_GLOBAL}": {},
        f"decoder.attention.{_LOCAL}": {"window": window},
        "decoder.pattern": kinds,
    }


def _write_windows(config) -> dict:
    stack = config.decoder
    windows = [stack.attention_of(layer).window for layer in range(stack.num_layers)]
    kinds = [_GLOBAL if window is None else _LOCAL for window in windows]
    written = {"attention_types": [[kinds, 1]], "attention_layers": kinds}
    sizes = [window for window in windows if window is not None]
    return {**written, "window_size": sizes[0]} if sizes else written


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"h.{index}"


BLOCK = {
    "self_attention/query": "attn.attention.q_proj",
    "self_attention/key": "attn.attention.k_proj",
    "self_attention/value": "attn.attention.v_proj",
    "self_attention/output": "attn.attention.out_proj",
    "attention_norm": "ln_1",
    "feed_forward/expand": "mlp.c_fc",
    "feed_forward/output": "mlp.c_proj",
    "feed_forward_norm": "ln_2",
}

FAMILY = Family(
    name="gpt_neo",
    prefix="transformer.",
    architecture="GPTNeoModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 50257),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": _LAYERS,
        "decoder.hidden_size": _SIZE,
        "decoder.attention.heads": Key("num_heads", 16, ("num_attention_heads",)),
        "decoder.feed_forward.size": Key("intermediate_size", lambda reference: 4 * _SIZE.read(reference)),
        "decoder.feed_forward.activation": Key("activation_function", "gelu_new"),
        "decoder.norm.epsilon": Key("layer_norm_epsilon", 1e-5),
        "decoder.max_positions": Key("max_position_embeddings", 2048),
        "decoder.dropout": Key("resid_dropout", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.embedding_dropout": Key("embed_dropout", 0.0),
        "heads.tied": Key("tie_word_embeddings", True),
    },
    fixed={
        **PRE_NORM,
        "decoder.attention.scale": 1.0,
        "decoder.attention.bias": False,
        "decoder.attention.output_bias": True,
    },
    rules=(
        Rule(("attention_types", "attention_layers", "window_size"), _read_windows, _write_windows),
        padding_rule(eos=50256),
        CAUSAL,
    ),
    modules={"token_embedding": "wte", "position_embedding": "wpe", "final_norm": "ln_f"},
    blocks={"decoder": Blocks(block, BLOCK)},
    heads={
        "causal-lm": Head("GPTNeoForCausalLM", {"language_model_head": "lm_head"}),
        **answers("GPTNeo"),
        "text-classification": Head("GPTNeoForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("GPTNeoForTokenClassification", {"token_classifier/output": "classifier"}),
    },
)
