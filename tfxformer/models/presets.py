"""Named architectures, as data; weights come from a checkpoint."""

from __future__ import annotations

from tfxformer.models.config import HeadConfig, StackConfig, TransformerConfig


def _bert(num_layers: int, hidden_size: int, num_heads: int, **changes) -> TransformerConfig:
    config = TransformerConfig(
        family="bert",
        vocabulary_size=30522,
        encoder=StackConfig(num_layers, hidden_size, num_heads, feed_forward_size=4 * hidden_size),
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
    "encoder__norm_epsilon": 1e-5,
    "heads": HeadConfig(classifier_activation="tanh", masked_lm_activation="gelu"),
}
_ALBERT = {
    "family": "albert",
    "vocabulary_size": 30000,
    "embedding_size": 128,
    "embedding_projection": True,
    "encoder__activation": "gelu_new",
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
    # Lan et al., 2019, arXiv:1909.11942
    "albert-base": _bert(12, 768, 12, **_ALBERT),
    # Clark et al., 2020, arXiv:2003.10555
    "electra-small": _bert(12, 256, 4, **_ELECTRA, embedding_size=128),
    "electra-base": _bert(12, 768, 12, **_ELECTRA),
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
