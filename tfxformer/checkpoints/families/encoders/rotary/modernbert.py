"""ModernBERT (Warner et al., 2024, arXiv:2412.13663): rotary positions, and most layers see near tokens only."""

from collections.abc import Mapping

from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import read_rotary, rotary_parameters, stated
from tfxformer.layers import Rotary

_FULL, _SLIDING = "full_attention", "sliding_attention"
_OURS = {_FULL: "full", _SLIDING: "sliding"}
_BASES = {_FULL: ("global_rope_theta", 160000.0), _SLIDING: ("local_rope_theta", 10000.0)}
_LAYERS, _POSITIONS = 22, 8192
_SAID = (
    *("layer_types", "global_attn_every_n_layers", "local_attention"),
    *("rope_parameters", "rope_scaling", "global_rope_theta", "local_rope_theta"),
)


def _read_kinds(reference: Mapping) -> dict:
    """Which layers see all tokens and which the near ones, and how each kind turns."""
    layers = reference.get("num_hidden_layers") or _LAYERS
    every = reference.get("global_attn_every_n_layers") or 3
    types = reference.get("layer_types") or [_SLIDING if layer % every else _FULL for layer in range(layers)]
    if not set(types) <= set(_OURS) or len(types) != layers:
        raise CheckpointError(
            f"config.json says layer_types={types} for {layers} layers; wanted is {_FULL!r} or {_SLIDING!r} for each."
        )
    found = {"encoder.pattern": [_OURS[kind] for kind in types]}
    given, scaling = reference.get("rope_parameters") or {}, reference.get("rope_scaling") or {}
    longest = reference.get("max_position_embeddings") or _POSITIONS
    for kind, (key, base) in _BASES.items():
        if reference.get(key, base) is None:
            raise CheckpointError(f"config.json says {key}=null; versions of transformers read that differently.")
        parameters = {"rope_theta": reference.get(key, base), **stated(given.get(kind) or {}), **stated(scaling)}
        found[f"encoder.attention.{_OURS[kind]}.rotary"] = read_rotary(parameters, None, longest)
    # The key counts both sides; a token sees those at most half of it away.
    window = reference.get("local_attention", 128)
    found["encoder.attention.sliding.window"] = window // 2
    return found


def _write_kinds(config) -> dict:
    stack = config.encoder
    layers = [stack.attention_of(layer) for layer in range(stack.num_layers)]
    full, near = ([one for one in layers if (one.window is None) == whole] for whole in (True, False))
    turns = {kind: Rotary(base) for kind, (_, base) in _BASES.items()}
    turns |= {kind: found[0].rotary for kind, found in ((_FULL, full), (_SLIDING, near)) if found}
    return {
        "layer_types": [_FULL if one.window is None else _SLIDING for one in layers],
        "local_attention": 2 * near[0].window if near else 128,
        "rope_parameters": {kind: {} if one is None else rotary_parameters(one) for kind, one in turns.items()},
    }


KEYS = {
    "vocabulary_size": Key("vocab_size", 50368),
    "padding_id": Key("pad_token_id", 50283),
    "initializer_range": Key("initializer_range", 0.02),
    "encoder.num_layers": Key("num_hidden_layers", _LAYERS),
    "encoder.hidden_size": Key("hidden_size", 768),
    "encoder.attention.heads": Key("num_attention_heads", 12),
    "encoder.attention.bias": Key("attention_bias", False),
    "encoder.feed_forward.size": Key("intermediate_size", 1152),
    "encoder.feed_forward.activation": Key("hidden_activation", "gelu"),
    "encoder.feed_forward.bias": Key("mlp_bias", False),
    "encoder.norm.epsilon": Key("norm_eps", 1e-5),
    "encoder.norm.bias": Key("norm_bias", False),
    "encoder.max_positions": Key("max_position_embeddings", _POSITIONS),
    "encoder.dropout": Key("mlp_dropout", 0.0),
    "encoder.attention_dropout": Key("attention_dropout", 0.0),
    "encoder.embedding_dropout": Key("embedding_dropout", 0.0),
    "heads.classifier_dropout": Key("classifier_dropout", 0.0),
    "heads.classifier_pooling": Key("classifier_pooling", "cls"),
    "heads.classifier_activation": Key("classifier_activation", "gelu"),
    "heads.masked_lm_activation": Key("classifier_activation", "gelu"),
    "heads.transform_bias": Key("classifier_bias", False),
}
FIXED = {
    **{"token_types": 0, "encoder.feed_forward.gated": True, "heads.transform": True},
    **{"encoder.norm.placement": "pre", "encoder.norm.first": False, "encoder.norm.final": True},
}
_QUERY, _KEY, _VALUE = (Module("attn.Wqkv", part=part) for part in range(3))
BLOCK = {
    "self_attention/query": _QUERY,
    "self_attention/key": _KEY,
    "self_attention/value": _VALUE,
    "self_attention/output": "attn.Wo",
    "attention_norm": "attn_norm",
    "feed_forward/gate": Module("mlp.Wi", part=0, sizes=(1, 1)),
    "feed_forward/expand": Module("mlp.Wi", part=1, sizes=(1, 1)),
    "feed_forward/output": "mlp.Wo",
    "feed_forward_norm": "mlp_norm",
}


_TRUE = dict.fromkeys(("tie_word_embeddings", "decoder_bias"), (True, None))
_HEAD = {"dense": "head.dense", "norm": "head.norm"}


def _head(ours: str, **others: str) -> dict[str, str]:
    return {f"{ours}/{layer}": module for layer, module in {**_HEAD, **others}.items()}


FAMILY = Family(
    name="modernbert",
    prefix="model.",
    architecture="ModernBertModel",
    keys=KEYS,
    fixed=FIXED,
    rules=(Rule(_SAID, _read_kinds, _write_kinds),),
    required={**_TRUE, "classifier_pooling": ("cls", "mean")},
    modules={
        "token_embedding": "embeddings.tok_embeddings",
        "embedding_norm": "embeddings.norm",
        "final_norm": "final_norm",
    },
    blocks={"encoder": Blocks(lambda config, index: f"layers.{index}", BLOCK)},
    heads={
        "text-classification": Head("ModernBertForSequenceClassification", _head("classifier", output="classifier")),
        "token-classification": Head(
            "ModernBertForTokenClassification", _head("token_classifier", output="classifier")
        ),
        "question-answering": Head("ModernBertForQuestionAnswering", _head("span_classifier", output="classifier")),
        "masked-lm": Head("ModernBertForMaskedLM", {**_head("masked_lm_transform"), "masked_lm_bias": "decoder"}),
    },
    tied={"decoder.weight": "embeddings.tok_embeddings.weight"},
)
