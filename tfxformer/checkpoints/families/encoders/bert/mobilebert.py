"""MobileBERT (Sun et al., 2020, arXiv:2004.02984): deep and narrow, its norms scale and shift alone.

A token's embedding is made of its neighbours', too, and the one behind the last token is that of padding, or nothing
where a batch has none: the reference's outputs of a text hang a little on the padding behind it, and so do these.
"""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module

_HEADS, _SIZE, _BLOCKS = Key("num_attention_heads", 4), Key("intra_bottleneck_size", 128), 4
_INSIDE = (
    *("intra_bottleneck_size", "num_feedforward_networks"),
    *("use_bottleneck_attention", "key_query_shared_bottleneck"),
)


def _read_inside(reference: Mapping) -> dict:
    size, heads = _SIZE.read(reference), _HEADS.read(reference)
    alone, shared = reference.get("use_bottleneck_attention"), reference.get("key_query_shared_bottleneck", True)
    if bool(alone) == bool(shared):
        raise CheckpointError(
            f"config.json says use_bottleneck_attention={alone!r}, key_query_shared_bottleneck={shared!r}: one of them "
            "must be true. With both the reference has weights that it never reads, with none it does not run."
        )
    if not all(isinstance(number, int) and number > 0 for number in (size, heads)):
        raise CheckpointError(
            f"config.json says {_SIZE.name}={size!r}, {_HEADS.name}={heads!r}; wanted numbers above 0."
        )
    count = reference.get("num_feedforward_networks") or _BLOCKS
    said = {"size": size, "feed_forwards": count, "own_queries": not alone}
    return {"encoder.bottleneck": said, "encoder.attention.width": size // heads}


def _write_inside(config) -> dict:
    inside = config.encoder.bottleneck
    said = (inside.size, inside.feed_forwards, not inside.own_queries, inside.own_queries) if inside else ()
    return dict(zip(_INSIDE, said, strict=False))


CLASSIFIER = Rule(
    ("classifier_activation",),
    lambda reference: {"heads.classifier_reads_pooler": reference.get("classifier_activation") is not False},
    lambda config: {"classifier_activation": config.heads.classifier_reads_pooler},
)
_PLACES = {"input": "bottleneck.input", "queries": "bottleneck.attention", "output": "output.bottleneck"}
_BLOCK = {
    **bert.BLOCK,
    **{f"bottleneck_{ours}": f"{theirs}.dense" for ours, theirs in _PLACES.items()},
    **{f"bottleneck_{ours}_norm": f"{theirs}.LayerNorm" for ours, theirs in _PLACES.items()},
}


def _modules(config) -> dict:
    modules, inside = dict(_BLOCK), config.encoder.bottleneck
    for index in range(inside.feed_forwards - 1 if inside else 0):
        modules[f"feed_forward_{index}/expand"] = f"ffn.{index}.intermediate.dense"
        modules[f"feed_forward_{index}/output"] = f"ffn.{index}.output.dense"
        modules[f"feed_forward_{index}_norm"] = f"ffn.{index}.output.LayerNorm"
    return modules


_BEYOND = {"masked_lm_beyond": Module("cls.predictions.dense", transposed=False)}
_OWN = ("embedding_size", "embedding_projection", "encoder.attention.width")
FAMILY = replace(
    bert.FAMILY,
    name="mobilebert",
    prefix="mobilebert.",
    architecture="MobileBertModel",
    keys={
        **bert.KEYS,
        "embedding_size": Key("embedding_size", 128),
        "embedding_neighbours": Key("trigram_input", True),
        "encoder.num_layers": Key("num_hidden_layers", 24),
        "encoder.hidden_size": Key("hidden_size", 512),
        "encoder.attention.heads": _HEADS,
        "encoder.feed_forward.size": Key("intermediate_size", 512),
        "encoder.feed_forward.activation": Key("hidden_act", "relu"),
        "encoder.dropout": Key("hidden_dropout_prob", 0.0),
        "heads.classifier_dropout": Key("classifier_dropout", lambda c: c.get("hidden_dropout_prob", 0.0)),
    },
    fixed={
        **{path: value for path, value in bert.FIXED.items() if path not in _OWN},
        "embedding_projection": None,
        "embedding_projection_first": True,
        "encoder.norm.kind": "affine",
        "heads.masked_lm_split": True,
    },
    rules=(Rule(_INSIDE, _read_inside, _write_inside), CLASSIFIER),
    required={
        "tie_word_embeddings": (True, None),
        "normalization_type": ("no_norm", None),
        "use_bottleneck": (True, None),
    },
    modules={**bert.EMBEDDINGS, "embedding_projection": "embeddings.embedding_transformation"},
    blocks={"encoder": Blocks(bert.block, _modules)},
    heads={
        task: replace(
            head,
            architecture=head.architecture.replace("Bert", "MobileBert"),
            modules={**head.modules, **(_BEYOND if "masked_lm_bias" in head.modules else {})},
        )
        for task, head in bert.FAMILY.heads.items()
    },
)
