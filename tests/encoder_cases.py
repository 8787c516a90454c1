"""The part of `make_fixtures` of encoders that have positions otherwise than BERT has: cases and sizes."""

from decoder_cases import VOCABULARY_SIZE, Case

CLASSES = {"mpnet": "MPNet"}
_SIZES = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}
SIZES = {"mpnet": {**_SIZES, "layer_norm_eps": 1e-5, "pad_token_id": 1}}
NO_SEGMENTS = ("mpnet",)
_HIDDEN, _TEXTS, _WORDS, _ANSWERS = (
    *("masked-lm", "text-classification"),
    *("token-classification", "question-answering"),
)
CASES = {
    "mpnet-bare": Case("mpnet", None, {"hidden_act": "relu"}, stored=True),
    "mpnet-masked-lm": Case("mpnet", _HIDDEN, {"hidden_act": "silu", "layer_norm_eps": 1e-3}),
    "mpnet-classifier": Case("mpnet", _TEXTS, {"num_labels": 3}),
    "mpnet-tagger": Case("mpnet", _WORDS, files="legacy"),
    "mpnet-answers": Case("mpnet", _ANSWERS, files="shards"),
}
