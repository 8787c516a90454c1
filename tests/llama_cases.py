"""Cases of `make_fixtures` for the families in checkpoints/families/decoders/llama, beside Llama's own ones."""

from decoder_cases import ANSWERS, FULL, GROUPED_SIZES, LM, OWN, SLIDING, TEXTS, TIED, WINDOW, WORDS, Case, rope

CLASSES = {
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
    "smollm3": "SmolLM3",
    "phi3": "Phi3",
    "olmo": "Olmo",
    "olmo2": "Olmo2",
    "olmo3": "Olmo3",
    "exaone4": "Exaone4",
    "granite": "Granite",
    "seed_oss": "SeedOss",
    "helium": "Helium",
    "ernie4_5": "Ernie4_5",
    "glm4": "Glm4",
    "cohere2": "Cohere2",
    "lfm2": "Lfm2",
    "qwen3_5_text": "Qwen3_5Text",
}
SIZES = {
    **{name: {**GROUPED_SIZES, "head_dim": 8} for name in CLASSES},
}
_FOUR = {"num_hidden_layers": 4, "sliding_window": 4}
_THREE_ONE = {"layer_types": [SLIDING, SLIDING, SLIDING, FULL], **_FOUR}
_TURNED = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}}
_TURNED["sliding_attention"] = {"rope_type": "default", "rope_theta": 100.0}
_TURNED_ALIKE = {**_TURNED, "sliding_attention": {"rope_type": "default", "rope_theta": 5e5}}
_NO_HEAD_WIDTH = ("smollm3", "phi3", "olmo", "olmo2", "olmo3", "exaone4", "granite", "cohere2")  # D / N always
SIZES |= dict.fromkeys(_NO_HEAD_WIDTH, GROUPED_SIZES)
SIZES["lfm2"] = GROUPED_SIZES  # D / N always
_LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
_LINEAR |= {"linear_key_head_dim": 6, "linear_value_head_dim": 5}
SIZES["qwen3_5_text"] |= {
    **_LINEAR,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", FULL, "linear_attention"],
}
SIZES["helium"] = {**GROUPED_SIZES, "head_dim": 4}
_FACTORS = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0], "original_max_position_embeddings": 8}
_LONG = {"rope_parameters": {"rope_type": "longrope", "rope_theta": 100.0, **_FACTORS}}
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
    "qwen3-answers": Case("qwen3", ANSWERS, {"num_hidden_layers": 1}),
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
    "smollm3-lm": Case("smollm3", LM, {"num_hidden_layers": 4}),
    "smollm3-old": Case("smollm3", LM, {"num_hidden_layers": 3, "no_rope_layers": [0, 1, 1], **OWN}, files="old"),
    "smollm3-window": Case(
        "smollm3", LM, {**_FOUR, "use_sliding_window": True, "no_rope_layer_interval": 2, "attention_bias": True}
    ),
    "smollm3-layer-types": Case("smollm3", None, {**_THREE_ONE, "use_sliding_window": True, "mlp_bias": True}),
    "smollm3-classifier": Case("smollm3", TEXTS),
    "smollm3-tagger": Case("smollm3", WORDS, files="shards"),
    "smollm3-answers": Case("smollm3", ANSWERS),
    "phi3-lm": Case("phi3", LM),
    "phi3-many-heads-window": Case("phi3", LM, {"num_key_value_heads": None, "sliding_window": 4, **TIED}),
    "phi3-old": Case("phi3", LM, {"num_hidden_layers": 1, "hidden_act": "gelu"}, files="old"),
    "phi3-longrope": Case("phi3", LM, _LONG),
    "phi3-longrope-short": Case(
        "phi3", LM, {"rope_parameters": {**_LONG["rope_parameters"], "original_max_position_embeddings": 16}}
    ),
    "phi3-longrope-old": Case("phi3", LM, {**_LONG, "original_max_position_embeddings": 8}, files="old"),
    "phi3-partial-old": Case("phi3", LM, {"rope_parameters": {"partial_rotary_factor": 0.5}}, files="old"),
    "phi3-shards": Case("phi3", LM, files="shards"),
    "phi3-classifier": Case("phi3", TEXTS),
    "phi3-tagger": Case("phi3", WORDS),
    "olmo-lm": Case("olmo", LM, {"clip_qkv": 0.7}),
    "olmo-old": Case("olmo", LM, {"attention_bias": True, "num_key_value_heads": None}, files="old"),
    "olmo-tied": Case("olmo", LM, TIED, files="shards"),
    "olmo-classifier": Case("olmo", TEXTS, {"clip_qkv": 2.0}),
    "olmo2-lm": Case("olmo2", LM),
    "olmo2-old": Case("olmo2", LM, {"attention_bias": True, "rms_norm_eps": 1e-3}, files="old"),
    "olmo2-many-heads": Case("olmo2", None, {"num_key_value_heads": None}),
    "olmo2-classifier": Case("olmo2", TEXTS),
    "olmo3-lm": Case("olmo3", LM, _FOUR),
    "olmo3-linear-old": Case("olmo3", LM, {**_FOUR, "rope_parameters": _TURNED_ALIKE}, files="old"),
    "olmo3-layer-types": Case("olmo3", None, {**_THREE_ONE, "layer_types": [FULL, SLIDING, FULL, SLIDING]}),
    "olmo3-classifier": Case("olmo3", TEXTS, _FOUR),
    "exaone4-lm": Case("exaone4", LM, _FOUR),
    "exaone4-no-window": Case("exaone4", LM, {"sliding_window": None, "layer_types": [FULL, FULL], **TIED}),
    "exaone4-old": Case("exaone4", LM, {**_FOUR, "rms_norm_eps": 1e-3}, files="old"),
    "exaone4-classifier": Case("exaone4", TEXTS, _THREE_ONE),
    "exaone4-tagger": Case("exaone4", WORDS, _FOUR),
    "exaone4-answers": Case("exaone4", ANSWERS, _FOUR),
    "granite-lm": Case("granite", LM),
    "granite-factors-old": Case(
        "granite",
        LM,
        {
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.22,
            "logits_scaling": 3.0,
            "attention_bias": True,
            "mlp_bias": True,
            **TIED,
        },
        files="old",
    ),
    "granite-usual-scale": Case("granite", None, {"attention_multiplier": 0.5, "residual_multiplier": 2}),
    "seed-oss-lm": Case("seed_oss", LM),
    "seed-oss-answers": Case("seed_oss", ANSWERS),
    "seed-oss-old": Case("seed_oss", LM, {"attention_out_bias": True, "head_dim": 128, **TIED}, files="old"),
    "seed-oss-no-biases": Case("seed_oss", None, {"attention_bias": False, "mlp_bias": True}),
    "seed-oss-classifier": Case("seed_oss", TEXTS),
    "seed-oss-tagger": Case("seed_oss", WORDS),
    "helium-lm": Case("helium", LM),
    "helium-old": Case("helium", LM, {"attention_bias": True, "mlp_bias": True}, files="old"),
    "helium-classifier": Case("helium", TEXTS),
    "ernie4_5-lm": Case("ernie4_5", LM),
    "ernie4_5-old": Case("ernie4_5", LM, {"use_bias": True, **OWN}, files="old"),
    "glm4-lm": Case("glm4", LM),
    "glm4-old": Case("glm4", LM, {"attention_bias": False, **TIED}, files="old"),
    "glm4-classifier": Case("glm4", TEXTS, {"rope_parameters": {"partial_rotary_factor": 0.25}}),
    "lfm2-lm": Case(
        "lfm2",
        LM,
        {"num_hidden_layers": 3, "layer_types": ["conv", FULL, "conv"], "conv_L_cache": 4, "block_multiple_of": 8},
        stored=True,
    ),
    "lfm2-old": Case(
        "lfm2",
        LM,
        {"num_hidden_layers": 3, "full_attn_idxs": [1], "block_multiple_of": 16, "norm_eps": 1e-3, **rope("linear")},
        files="old",
    ),
    "lfm2-attention-alone": Case("lfm2", None, {"num_key_value_heads": 6, "block_ffn_dim_multiplier": 1.5, **OWN}),
    "lfm2-shards": Case(
        "lfm2",
        LM,
        {"num_hidden_layers": 4, "full_attn_idxs": [2], "block_auto_adjust_ff_dim": False, **OWN},
        files="shards",
    ),
    "qwen3_5-lm": Case("qwen3_5_text", LM, stored=True),
    "qwen3_5-old": Case(
        "qwen3_5_text",
        LM,
        {
            "num_hidden_layers": 4,
            "layer_types": None,
            "linear_num_value_heads": 2,
            "linear_conv_kernel_dim": 2,
            "attention_bias": True,
            "rms_norm_eps": 1e-3,
            **TIED,
        },
        files="old",
    ),
    "qwen3_5-shards": Case("qwen3_5_text", LM, {"num_key_value_heads": 6}, files="shards"),
    "qwen3_5-classifier": Case("qwen3_5_text", TEXTS),
    "cohere2-lm": Case("cohere2", LM, _FOUR),
    "cohere2-old": Case("cohere2", LM, {**_FOUR, "attention_bias": True, "logit_scale": 0.5}, files="old"),
    "cohere2-layer-types": Case("cohere2", None, {**_FOUR, "layer_types": [FULL, SLIDING, SLIDING, FULL]}),
}
