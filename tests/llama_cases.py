"""Cases of `make_fixtures` for the families in checkpoints/families/decoders/llama, beside Llama's own ones."""

from decoder_cases import FULL, GROUPED_SIZES, LM, OWN, SLIDING, TEXTS, TIED, WINDOW, WORDS, Case, rope

CLASSES = {
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
}
SIZES = {
    **{name: {**GROUPED_SIZES, "head_dim": 8} for name in ("qwen3", "gemma", "gemma2", "gemma3_text")},
}
_FOUR = {"num_hidden_layers": 4, "sliding_window": 4}
_THREE_ONE = {"layer_types": [SLIDING, SLIDING, SLIDING, FULL], **_FOUR}
_TURNED = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}}
_TURNED["sliding_attention"] = {"rope_type": "default", "rope_theta": 100.0}
CASES = {
    "qwen3-lm": Case("qwen3", LM, {**TIED, "num_hidden_layers": 1, "head_dim": 4}, stored=True),
    "qwen3-old": Case("qwen3", LM, {"num_hidden_layers": 1, "head_dim": 128}, files="old"),
    "qwen3-biases-window": Case("qwen3", LM, {**WINDOW, **OWN, "attention_bias": True, "rms_norm_eps": 1e-3}),
    "qwen3-window-old": Case("qwen3", LM, {**WINDOW, **rope("yarn")}, files="old"),
    "qwen3-layer-types": Case(
        "qwen3", None, {**WINDOW, "num_hidden_layers": 3, "layer_types": [SLIDING, FULL, SLIDING]}
    ),
    "qwen3-many-heads": Case("qwen3", LM, {"num_key_value_heads": 6, "hidden_act": "gelu"}, files="shards"),
    "qwen3-classifier": Case("qwen3", TEXTS, {"num_labels": 3}),
    "qwen3-tagger": Case("qwen3", WORDS),
    "gemma-lm": Case("gemma", LM),
    "gemma-old": Case("gemma", LM, {"hidden_act": "gelu", "head_dim": 256, "num_hidden_layers": 1}, files="old"),
    "gemma-one-group-own-head": Case("gemma", LM, {**OWN, "num_key_value_heads": 1, "hidden_act": "relu"}),
    "gemma-biases": Case("gemma", None, {"attention_bias": True, "rms_norm_eps": 1e-3, "head_dim": 4}),
    "gemma-shards": Case("gemma", LM, files="shards"),
    "gemma-classifier": Case("gemma", TEXTS),
    "gemma-tagger": Case("gemma", WORDS),
    "gemma2-lm": Case("gemma2", LM, {"sliding_window": 4, "num_hidden_layers": 3}),
    "gemma2-old": Case("gemma2", LM, {"head_dim": 4, "attn_logit_softcapping": 1.5, "sliding_window": 4}, files="old"),
    "gemma2-no-caps": Case(
        "gemma2",
        LM,
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 24, **_THREE_ONE},
    ),
    "gemma2-bare": Case("gemma2", None, {"hidden_activation": "gelu", "attention_bias": True}),
    "gemma2-classifier": Case("gemma2", TEXTS, {"sliding_window": 4}),
    "gemma2-tagger": Case("gemma2", WORDS, {"sliding_window": 4}),
    "gemma3-lm": Case("gemma3_text", LM, {**_THREE_ONE, "rope_parameters": _TURNED}),
    "gemma3-defaults-old": Case("gemma3_text", LM, {"sliding_window": 4, "num_hidden_layers": 7}, files="old"),
    "gemma3-linear-old": Case(
        "gemma3_text", LM, {**_THREE_ONE, "sliding_window_pattern": 4, "rope_parameters": _TURNED}, files="old"
    ),
    "gemma3-capped": Case(
        "gemma3_text",
        LM,
        {"final_logit_softcapping": 20.0, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 1.0, **_THREE_ONE},
        files="shards",
    ),
    "gemma3-both-ways": Case("gemma3_text", None, {**_THREE_ONE, "use_bidirectional_attention": True}),
    "gemma3-classifier": Case("gemma3_text", TEXTS, _THREE_ONE),
}
