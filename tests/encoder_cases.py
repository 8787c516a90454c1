"""The part of `make_fixtures` of encoders that have positions otherwise than BERT has: cases and sizes."""

import json

from decoder_cases import GROUPED_SIZES, VOCABULARY_SIZE, Case

CLASSES = {
    "mpnet": "MPNet",
    "modernbert": "ModernBert",
    "nomic_bert": "NomicBert",
    "gte": "Gte",
    "eurobert": "EuroBert",
    "mobilebert": "MobileBert",
    "xlnet": "XLNet",
    "deberta-v2": "DebertaV2",
    "deberta": "Deberta",
}
_SIZES = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SIZES = {
    "mpnet": {**_SIZES, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "nomic_bert": _SIZES,
    "gte": {**_SIZES, "pad_token_id": 1, "type_vocab_size": 1},
    "mobilebert": {**_SIZES, "embedding_size": 16, "intra_bottleneck_size": 12, "num_feedforward_networks": 3},
    "xlnet": {"vocab_size": VOCABULARY_SIZE, "d_model": 24, "n_layer": 2, "n_head": 3, "d_inner": 40},
    "eurobert": {**GROUPED_SIZES, "head_dim": 8},
    "deberta-v2": {**_SIZES, "type_vocab_size": 0},
    "deberta": {**_SIZES, "type_vocab_size": 0},
    "modernbert": {**_SIZES, **_TOKENS, "num_hidden_layers": 4, "local_attention": 6},
}
NO_SEGMENTS = ("mpnet", "modernbert", "eurobert")
PADDED_IN_FRONT = ("xlnet",)  # its classifier reads the last slot
NO_POOLER = ("modernbert", "deberta-v2", "deberta", "nomic_bert", "gte", "eurobert", "xlnet")
FINAL_NORM = ("modernbert", "eurobert")  # the last of the reference's hidden states is normed
_HIDDEN, _TEXTS, _WORDS, _ANSWERS = (
    *("masked-lm", "text-classification"),
    *("token-classification", "question-answering"),
)
_FULL, _SLIDING = "full_attention", "sliding_attention"
_LINEAR = {"rope_theta": 100.0, "rope_type": "linear", "factor": 3.0}
_V2 = {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
_V3 = {**_V2, "position_buckets": 4, "max_relative_positions": 9, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
_NARROW = {"use_bottleneck_attention": True, "key_query_shared_bottleneck": False}
_SMALL = {"num_hidden_layers": 3, "intermediate_size": 16}
_TURNS = {"rope_parameters": {_FULL: {"rope_theta": 900.0}, _SLIDING: {"rope_theta": 30.0}}}
# Rotary positions of the kind "ntk", of which transformers has none, are linear ones of another base and factor:
# (b f) ** (-2i / H) / f ** (2 / H), as vllm's ntk_scaling_rope.py has them, too. H is 8.
NTK = {"rope_theta": 500.0, "factor": 2.0}
_AS_LINEAR = {"rope_type": "linear", "rope_theta": 500.0 * 2.0, "factor": 2.0 ** (2 / 8)}
PUBLISHED = {"rope_parameters": _AS_LINEAR, "pad_token_id": 0}
CASES = {
    "mpnet-bare": Case("mpnet", None, {"hidden_act": "relu"}, stored=True),
    "mpnet-masked-lm": Case("mpnet", _HIDDEN, {"hidden_act": "silu", "layer_norm_eps": 1e-3}),
    "mpnet-classifier": Case("mpnet", _TEXTS, {"num_labels": 3}),
    "mpnet-tagger": Case("mpnet", _WORDS, files="legacy"),
    "mpnet-answers": Case("mpnet", _ANSWERS, files="shards"),
    "deberta-bare": Case("deberta-v2", None, _V3),
    "deberta-masked-lm": Case("deberta-v2", _HIDDEN, {**_V3, "hidden_act": "relu"}, stored=True),
    "deberta-classifier": Case("deberta-v2", _TEXTS, {**_V3, "pooler_hidden_act": "tanh", "type_vocab_size": 2}),
    "deberta-own-projections": Case("deberta-v2", _WORDS, {**_V2, "norm_rel_ebd": "layer_norm", "position_buckets": 6}),
    "deberta-every-distance": Case("deberta-v2", _ANSWERS, {**_V2, "max_relative_positions": 5}),
    "deberta-one-term": Case("deberta-v2", _HIDDEN, {**_V2, "pos_att_type": ["c2p"], "position_biased_input": True}),
    "deberta-the-other": Case("deberta-v2", _WORDS, {**_V3, "pos_att_type": "p2c"}),
    "deberta-no-distances": Case("deberta-v2", _TEXTS, {"type_vocab_size": 2}),
    "deberta-convolution": Case("deberta-v2", None, {**_V3, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-wide-convolution": Case("deberta-v2", _TEXTS, {**_V2, "conv_kernel_size": 5, "num_hidden_layers": 1}),
    "deberta-its-own-names": Case("deberta-v2", _HIDDEN, {**_V3, "legacy": False}),
    "deberta-v1-bare": Case("deberta", None, {**_V2, "pos_att_type": "c2p"}),
    "deberta-v1-masked-lm": Case("deberta", _HIDDEN, {**_V2, "max_relative_positions": 5}),
    "deberta-v1-classifier": Case("deberta", _TEXTS, {**_V2, "position_biased_input": True, "type_vocab_size": 2}),
    "deberta-v1-tagger": Case("deberta", _WORDS, {**_V2, "pos_att_type": "p2c"}),
    "deberta-v1-answers": Case("deberta", _ANSWERS, {**_V2, "layer_norm_eps": 1e-3}),
    "nomic-bare": Case("nomic_bert", None, {"type_vocab_size": 1, "layer_norm_eps": 1e-3}),
    "nomic-masked-lm": Case("nomic_bert", _HIDDEN, {"head_dim": 10}),
    "nomic-classifier": Case("nomic_bert", _TEXTS, {"hidden_act": "gelu", "rope_parameters": _LINEAR}),
    "nomic-tagger": Case("nomic_bert", _WORDS, {"type_vocab_size": 3}),
    "gte-bare": Case("gte", None, {"hidden_act": "relu"}),
    "gte-masked-lm": Case("gte", _HIDDEN, {"type_vocab_size": 2, "hidden_act": "silu"}, stored=True),
    "gte-classifier": Case("gte", _TEXTS, {"rope_parameters": _LINEAR}),
    "gte-tagger": Case("gte", _WORDS, {"layer_norm_eps": 1e-3}),
    "eurobert-bare": Case("eurobert", None, {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-3}),
    "eurobert-old": Case("eurobert", None, {"num_key_value_heads": 6, "hidden_act": "gelu"}, files="old"),
    "eurobert-masked-lm": Case("eurobert", _HIDDEN, {"rope_parameters": _LINEAR}, files="old"),
    "eurobert-tied-masked-lm": Case("eurobert", _HIDDEN, {"tie_word_embeddings": True, "mlp_bias": True}),
    "eurobert-classifier": Case("eurobert", _TEXTS, {"num_labels": 3}, stored=True),
    "eurobert-classifier-mean": Case("eurobert", _TEXTS, {"classifier_pooling": "mean", "head_dim": 4}),
    "eurobert-classifier-first": Case("eurobert", _TEXTS, {"classifier_pooling": "bos"}),
    "eurobert-tagger": Case("eurobert", _WORDS, {"num_labels": 3}),
    "mobilebert-bare": Case("mobilebert", None, {"hidden_act": "gelu", "layer_norm_eps": 1e-3}),
    "mobilebert-masked-lm": Case("mobilebert", _HIDDEN, {"type_vocab_size": 3}, stored=True),
    "mobilebert-pretraining": Case("mobilebert", "pretraining", {"num_feedforward_networks": 1}),
    "mobilebert-classifier": Case("mobilebert", _TEXTS, {"classifier_activation": False, "num_labels": 3}),
    "mobilebert-classifier-pooled": Case("mobilebert", _TEXTS, _NARROW),
    "mobilebert-tagger": Case("mobilebert", _WORDS, {"trigram_input": False}, files="shards"),
    "mobilebert-answers": Case("mobilebert", _ANSWERS, {"num_attention_heads": 2}, files="old"),
    "xlnet-bare": Case("xlnet", None, {"ff_activation": "relu", "layer_norm_eps": 1e-3}),
    "xlnet-masked-lm": Case("xlnet", _HIDDEN, {"n_layer": 3}, stored=True),
    "xlnet-classifier": Case("xlnet", _TEXTS, {"num_labels": 3}),
    "xlnet-tagger": Case("xlnet", _WORDS, {"pad_token_id": 0}),
    "xlnet-answers": Case("xlnet", _ANSWERS, files="old"),
    "gte-published": Case("gte", None, PUBLISHED, files="published"),
    "gte-published-masked-lm": Case("gte", _HIDDEN, {**PUBLISHED, "type_vocab_size": 2}, files="published"),
    "gte-published-classifier": Case("gte", _TEXTS, PUBLISHED, files="published"),
    "gte-published-tagger": Case("gte", _WORDS, {"type_vocab_size": 2}, files="published"),
    "modernbert-bare": Case("modernbert", None, {"hidden_activation": "relu", "global_attn_every_n_layers": 2}),
    "modernbert-masked-lm": Case("modernbert", _HIDDEN, {"classifier_activation": "silu", **_SMALL}, stored=True),
    "modernbert-biases": Case(
        "modernbert",
        _HIDDEN,
        {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True, "norm_eps": 1e-3},
    ),
    "modernbert-classifier": Case("modernbert", _TEXTS, {"num_labels": 3}),
    "modernbert-classifier-mean": Case("modernbert", _TEXTS, {"classifier_pooling": "mean"}, files="old"),
    "modernbert-old": Case("modernbert", _HIDDEN, _TURNS, files="old"),
    "modernbert-tagger": Case("modernbert", _WORDS, {"layer_types": [_SLIDING, _FULL, _FULL, _SLIDING]}),
    "modernbert-answers": Case("modernbert", _ANSWERS, {"layer_types": [_SLIDING] * 4, "local_attention": 9}),
    "modernbert-all-full": Case("modernbert", _WORDS, {"layer_types": [_FULL] * 4}),
}


def old_config(config: dict) -> dict:
    """A config.json in the spelling of transformers 4."""
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "eurobert":
        turns = config.pop("rope_parameters")
        config["rope_theta"] = turns.pop("rope_theta")
        config["rope_scaling"] = turns if turns["rope_type"] != "default" else None
    if config["model_type"] == "modernbert":
        del config["layer_types"]
        config["global_attn_every_n_layers"] = 3
        turns = config.pop("rope_parameters")
        config["global_rope_theta"] = turns[_FULL]["rope_theta"]
        config["local_rope_theta"] = turns[_SLIDING]["rope_theta"]
    return config


def publish(folder) -> None:
    """Puts a GTE by transformers into the words of the code that it was published with: the model "new"."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    turns = config.pop("rope_parameters")
    ntk = turns["rope_type"] == "linear"
    config["rope_theta"] = NTK["rope_theta"] if ntk else turns["rope_theta"]
    config["rope_scaling"] = {"type": "ntk", "factor": NTK["factor"]} if ntk else None
    config |= {"model_type": "new", "pack_qkv": True, "unpad_inputs": False}
    config["architectures"] = [config["architectures"][0].replace("Gte", "New")]
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    tensors = {name.replace("gte.", "new."): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
