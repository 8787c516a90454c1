"""Cases of `make_fixtures` for the families in checkpoints/families/decoders/llama, beside Llama's own ones."""

from decoder_cases import FULL, GROUPED_SIZES, LM, OWN, SLIDING, TEXTS, TIED, WINDOW, WORDS, Case, rope

CLASSES = {
    "qwen3": "Qwen3",
}
SIZES = {
    "qwen3": {**GROUPED_SIZES, "head_dim": 8},
}
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
}
