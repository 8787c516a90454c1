"""Cases of `make_fixtures` for families in checkpoints/families/decoders/gpt, beside those in `decoder_cases`."""

from decoder_cases import ANSWERS, GROUPED_SIZES, LM, OWN, TEXTS, TIED, TOKENS, WORDS, Case, rope

CLASSES = {
    "phi": "Phi",
    "gpt_neo": "GPTNeo",
    "falcon": "Falcon",
    "starcoder2": "Starcoder2",
    "gptj": "GPTJ",
    "codegen": "CodeGen",
    "gpt_bigcode": "GPTBigCode",
    "stablelm": "StableLm",
}
_SIZES = {key: value for key, value in GROUPED_SIZES.items() if key != "num_key_value_heads"}
_GPT_SIZES = {**TOKENS, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 40, "n_inner": 40}
_WIDE = {"hidden_size": 32, "num_attention_heads": 4}  # heads whose half turns in pairs
SIZES = {
    "phi": {**_SIZES, **_WIDE},
    "gpt_neo": {
        **TOKENS,
        "hidden_size": 24,
        "num_layers": 2,
        "num_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 40,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "falcon": {**{key: value for key, value in _SIZES.items() if key != "intermediate_size"}, "ffn_hidden_size": 40},
    "starcoder2": GROUPED_SIZES,
    "gptj": {**_GPT_SIZES, "rotary_dim": 4},
    "codegen": {**_GPT_SIZES, "rotary_dim": 4},
    "gpt_bigcode": _GPT_SIZES,
    "stablelm": {**_SIZES, **_WIDE, "num_key_value_heads": 2},
}
_NEW = {"new_decoder_architecture": True, "num_kv_heads": 2}
CASES = {
    "phi-lm": Case("phi", LM, {"num_hidden_layers": 1}, stored=True),
    "phi-old": Case("phi", LM, {"num_key_value_heads": 2, "layer_norm_eps": 1e-3}, files="old"),
    "phi-tied": Case("phi", LM, {**TIED, "hidden_act": "relu"}),
    "phi-linear-old": Case("phi", LM, rope("linear", partial_rotary_factor=0.25), files="old"),
    "phi-shards": Case("phi", LM, files="shards"),
    "phi-bare": Case("phi"),
    "phi-classifier": Case("phi", TEXTS, {"num_labels": 3}),
    "phi-tagger": Case("phi", WORDS),
    "gpt-neo-lm": Case("gpt_neo", LM, {"hidden_size": 12}, stored=True),
    "gpt-neo-old": Case("gpt_neo", LM, {"num_layers": 3, "attention_types": [[["local"], 2], [["global"], 1]]}, "old"),
    "gpt-neo-all-windows": Case(
        "gpt_neo", None, {"attention_types": [[["local"], 2]], "intermediate_size": None, "activation_function": "relu"}
    ),
    "gpt-neo-no-window": Case("gpt_neo", LM, {**OWN, "attention_types": [[["global"], 2]], "layer_norm_epsilon": 1e-3}),
    "gpt-neo-copy": Case("gpt_neo", LM, files="copy"),
    "gpt-neo-classifier": Case("gpt_neo", TEXTS, {"num_labels": 3}),
    "gpt-neo-tagger": Case("gpt_neo", WORDS),
    "gpt-neo-answers": Case("gpt_neo", ANSWERS),
    "falcon-7b": Case("falcon", LM, {"num_hidden_layers": 1}, stored=True),
    "falcon-7b-old": Case("falcon", LM, {"bias": True, "ffn_hidden_size": None, "layer_norm_epsilon": 1e-3}, "old"),
    "falcon-40b": Case("falcon", LM, {**_NEW, **OWN}),
    "falcon-40b-old": Case("falcon", LM, {**_NEW, **rope("dynamic")}, files="old"),
    "falcon-11b": Case("falcon", LM, {**_NEW, "num_ln_in_parallel_attn": 1, "activation": "relu"}, files="shards"),
    "falcon-rw": Case(
        "falcon",
        LM,
        {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "num_attention_heads": 24},
    ),
    "falcon-alibi-multi-query": Case("falcon", None, {"alibi": True}),
    "falcon-rw-rotary": Case("falcon", LM, {"multi_query": False, "parallel_attn": False, "bias": True}),
    "falcon-multi-query-in-order": Case("falcon", None, {"parallel_attn": False}),
    "falcon-classifier": Case("falcon", TEXTS, {**_NEW, "num_labels": 3}),
    "falcon-tagger": Case("falcon", WORDS),
    "falcon-answers": Case("falcon", ANSWERS),
    "starcoder2-lm": Case("starcoder2", LM, {"num_hidden_layers": 1}, stored=True),
    "starcoder2-old": Case("starcoder2", LM, {"sliding_window": 4, "norm_epsilon": 1e-3}, files="old"),
    "starcoder2-no-bias": Case("starcoder2", LM, {**OWN, "use_bias": False, "hidden_act": "relu", **rope("yarn")}),
    "starcoder2-bare": Case("starcoder2", None, {"num_key_value_heads": 6}),
    "starcoder2-classifier": Case("starcoder2", TEXTS, {"num_labels": 3}),
    "starcoder2-tagger": Case("starcoder2", WORDS, {"sliding_window": 4}),
    "gptj-lm": Case("gptj", LM),
    "gptj-whole-heads-old": Case("gptj", LM, {"rotary_dim": 6, "n_inner": None}, files="old"),
    "gptj-tied": Case("gptj", LM, {**TIED, "layer_norm_epsilon": 1e-3, "rotary_dim": 2}),
    "gptj-bare": Case("gptj", None, {"activation_function": "relu"}),
    "gptj-answers": Case("gptj", ANSWERS),
    "gptj-classifier": Case("gptj", TEXTS, {"num_labels": 3}),
    "codegen-lm": Case("codegen", LM, {"n_layer": 1, "n_embd": 32, "n_head": 8}, stored=True),
    "codegen-old": Case("codegen", LM, {"n_inner": None}, files="old"),
    "codegen-shards": Case("codegen", LM, {"rotary_dim": 6}, files="shards"),
    "codegen-bare": Case("codegen", None, {"layer_norm_epsilon": 1e-3}),
    "bigcode-lm": Case("gpt_bigcode", LM, {"n_layer": 1}, stored=True),
    "bigcode-many-heads": Case("gpt_bigcode", LM, {"multi_query": False, "activation_function": "gelu"}),
    "bigcode-unscaled-old": Case("gpt_bigcode", LM, {"scale_attn_weights": False, "n_inner": None}, files="old"),
    "bigcode-own-head": Case("gpt_bigcode", LM, {**OWN, "layer_norm_epsilon": 1e-3}),
    "bigcode-bare": Case("gpt_bigcode", None, {"multi_query": False}),
    "bigcode-classifier": Case("gpt_bigcode", TEXTS, {"num_labels": 3}),
    "bigcode-tagger": Case("gpt_bigcode", WORDS),
    "stablelm-lm": Case("stablelm", LM),
    "stablelm-old": Case("stablelm", LM, {"use_qkv_bias": True, "layer_norm_eps": 1e-3}, files="old"),
    "stablelm-parallel": Case("stablelm", LM, {**TIED, "use_parallel_residual": True, "num_key_value_heads": 4}),
    "stablelm-half-turned": Case(
        "stablelm", None, {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}, "hidden_act": "gelu"}
    ),
    "stablelm-classifier": Case("stablelm", TEXTS, {"num_labels": 3}),
    "stablelm-tagger": Case("stablelm", WORDS),
}
