"""T5 (Raffel et al., 2019, arXiv:1910.10683) and its kin: mT5 (arXiv:2010.11934), UMT5 (arXiv:2304.09151)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.layers import Scores

STACKS = ("encoder", "decoder")
_TABLE = "{}.block.{}.layer.0.SelfAttention.relative_attention_bias"
GATED = "gated-"
# Of "gated-gelu" transformers makes the tanh form; of every other word, and of "gelu" alone, what it says.
GATED_ACTIVATIONS = {"gelu": "gelu_new"}


def both(switches: Mapping) -> dict:
    """The same switches in each stack."""
    return {f"{stack}.{path}": value for stack in STACKS for path, value in switches.items()}


def scores_rule(shared: bool) -> Rule:
    """The rule of relative scores, of a table for each stack or for each layer."""

    def read(reference: Mapping) -> dict:
        buckets = reference.get("relative_attention_num_buckets") or 32
        distance = reference.get("relative_attention_max_distance") or 128
        return both({"attention.scores": Scores("relative", buckets, distance, shared)})

    def write(config) -> dict:
        scores = config.encoder.attention_of(0).scores
        if scores is None:
            return {}
        return {
            "relative_attention_num_buckets": scores.buckets,
            "relative_attention_max_distance": scores.max_distance,
        }

    return Rule(("relative_attention_num_buckets", "relative_attention_max_distance"), read, write)


# Keys that transformers takes by another name, too.
_FACTOR = Key("initializer_factor", 1.0)
SIZE, WIDTH = Key("d_model", 512, ("hidden_size",)), Key("d_kv", 64, ("head_dim",))


def layers_keys(usual: int) -> dict[str, Key]:
    """The numbers of layers, the decoder's that of the encoder where it is absent; `usual` for neither."""
    layers = Key("num_layers", usual, ("num_hidden_layers",))
    return {"encoder.num_layers": layers, "decoder.num_layers": Key("num_decoder_layers", layers.read)}


def heads_key(usual: int) -> Key:
    """The number of heads of every layer."""
    return Key("num_heads", usual, ("num_attention_heads",))


def width_rule(heads: int) -> Rule:
    """The rule of the heads' width; `heads` is what an absent `num_heads` means."""

    def read(reference: Mapping) -> dict:
        width = WIDTH.read(reference)
        same = width * heads_key(heads).read(reference) == SIZE.read(reference)
        return both({"attention.width": None if same else width})

    return Rule((WIDTH.name, *WIDTH.also), read, lambda config: {WIDTH.name: config.encoder.head_width})


def feed_forward_rule(usual: str) -> Rule:
    """The rule of `feed_forward_proj`, an activation perhaps behind "gated-"; `usual` is what an absent one means."""

    def read(reference: Mapping) -> dict:
        said = reference.get("feed_forward_proj") or usual
        if not isinstance(said, str):
            raise CheckpointError(f"config.json says feed_forward_proj={said!r}; wanted a name such as 'gated-gelu'.")
        name = said.removeprefix(GATED)
        gated = name != said
        return both(
            {
                "feed_forward.gated": gated,
                "feed_forward.activation": GATED_ACTIVATIONS.get(name, name) if gated else name,
            }
        )

    def write(config) -> dict:
        half = config.encoder.feed_forward
        names = {ours: theirs for theirs, ours in GATED_ACTIVATIONS.items()} if half.gated else {}
        return {"feed_forward_proj": f"{GATED if half.gated else ''}{names.get(half.activation, half.activation)}"}

    return Rule(("feed_forward_proj",), read, write)


def _read_scale(reference: Mapping) -> dict:
    # transformers 5 writes tie_word_embeddings=true whatever the model is, and beside it whether logits are scaled.
    scaled = reference.get("scale_decoder_outputs")
    if scaled is None:
        scaled = reference.get("tie_word_embeddings") is not False
    return {"heads.logit_scale": float(SIZE.read(reference)) ** -0.5 if scaled else 1.0}


def _write_scale(config) -> dict:
    return {"scale_decoder_outputs": config.heads.logit_scale != 1.0}


def _read_stacks(reference: Mapping) -> dict:
    alone = reference.get("is_encoder_decoder") is False or any(
        name.endswith("EncoderModel") for name in reference.get("architectures") or ()
    )
    return {"decoder": None, "heads.tied": True, "heads.logit_scale": 1.0} if alone else {}  # it has no logits


# An encoder alone (sentence-t5): transformers says it by the class, and not in every version by the flag.
ENCODER_ALONE = Rule(
    ("is_encoder_decoder", "architectures"),
    _read_stacks,
    lambda config: {"is_encoder_decoder": config.decoder is not None},
)

# Nothing outside training hangs on it, so a model that began otherwise is saved, too.
INITIAL = Rule(
    ("initializer_factor",),
    lambda reference: {"initializer": "fan_in", "initializer_range": _FACTOR.read(reference)},
    lambda config: {_FACTOR.name: config.initializer_range} if config.initializer == "fan_in" else {},
)

KEYS = {
    "vocabulary_size": Key("vocab_size", 32128),
    "padding_id": Key("pad_token_id", 0),
    **layers_keys(6),
    "heads.tied": Key("tie_word_embeddings", True),
    "heads.classifier_dropout": Key("classifier_dropout", 0.0),
    **both(
        {
            "hidden_size": SIZE,
            "attention.heads": heads_key(8),
            "feed_forward.size": Key("d_ff", 2048),
            "norm.epsilon": Key("layer_norm_epsilon", 1e-6),
            "max_positions": Key("n_positions", 512),
            "dropout": Key("dropout_rate", 0.1),
            "attention_dropout": Key("dropout_rate", 0.1),
        }
    ),
}
FIXED = both(
    {
        "norm.kind": "rms",
        "norm.placement": "pre",
        "norm.embedding": False,
        "norm.final": True,
        "attention.scale": 1.0,
        "attention.bias": False,
        "feed_forward.bias": False,
    }
)


def _attention(ours: str, theirs: str) -> dict[str, str]:
    names = {"query": "q", "key": "k", "value": "v", "output": "o"}
    return {f"{ours}/{name}": f"{theirs}.{letter}" for name, letter in names.items()}


def _feed_forward(number: int, gated: bool) -> dict[str, str]:
    inner = {"gate": "wi_0", "expand": "wi_1"} if gated else {"expand": "wi"}
    names = {**inner, "output": "wo"}
    return {
        "feed_forward_norm": f"{number}.layer_norm",
        **{f"feed_forward/{ours}": f"{number}.DenseReluDense.{theirs}" for ours, theirs in names.items()},
    }


def _encoder_modules(config) -> dict[str, str]:
    return {
        **_attention("self_attention", "0.SelfAttention"),
        "attention_norm": "0.layer_norm",
        **_feed_forward(1, config.encoder.feed_forward.gated),
    }


def _decoder_modules(config) -> dict[str, str]:
    return {
        **_attention("self_attention", "0.SelfAttention"),
        "attention_norm": "0.layer_norm",
        **_attention("cross_attention", "1.EncDecAttention"),
        "cross_attention_norm": "1.layer_norm",
        **_feed_forward(2, config.decoder.feed_forward.gated),
    }


def heads(name: str) -> dict[str, Head]:
    """The heads of a family, whose classes begin with its name: one that writes, and a classifier."""
    classifier = {"classifier/dense": "classification_head.dense", "classifier/output": "classification_head.out_proj"}
    return {
        "seq2seq-lm": Head(f"{name}ForConditionalGeneration", {"language_model_head": "lm_head"}),
        "text-classification": Head(f"{name}ForSequenceClassification", classifier, prefix="transformer."),
    }


FAMILY = Family(
    name="t5",
    prefix="",
    architecture="T5Model",
    keys=KEYS,
    fixed=FIXED,
    rules=(
        width_rule(8),
        feed_forward_rule("relu"),
        scores_rule(shared=True),
        Rule(("scale_decoder_outputs",), _read_scale, _write_scale),
        ENCODER_ALONE,
        INITIAL,
    ),
    encoder_architecture="T5EncoderModel",
    modules={
        "token_embedding": "shared",
        "final_norm": "encoder.final_layer_norm",
        **{f"{stack}_final_norm": f"{stack}.final_layer_norm" for stack in STACKS},
        **{f"{stack}_position_scores": _TABLE.format(stack, 0) for stack in STACKS},
    },
    blocks={
        "encoder": Blocks(lambda config, index: f"encoder.block.{index}.layer", _encoder_modules),
        "decoder": Blocks(lambda config, index: f"decoder.block.{index}.layer", _decoder_modules),
    },
    heads=heads("T5"),
    other_heads=("classification_head", "classifier"),
    # Older files repeat the table for each stack.
    tied={f"{stack}.embed_tokens.weight": "shared.weight" for stack in STACKS},
)

# Released files have a head of their own, and its logits are never scaled, whatever config.json says.
MT5 = replace(
    FAMILY,
    name="mt5",
    architecture="MT5Model",
    keys={
        **KEYS,
        "vocabulary_size": Key("vocab_size", 250112),
        **layers_keys(8),
        **both({"attention.heads": heads_key(6), "feed_forward.size": Key("d_ff", 1024)}),
    },
    fixed={**FIXED, "heads.logit_scale": 1.0},
    rules=(width_rule(6), feed_forward_rule("gated-gelu"), FAMILY.rules[2], ENCODER_ALONE, INITIAL),
    encoder_architecture="MT5EncoderModel",
    heads=heads("MT5"),
)

# As T5 v1.1, but each layer has a table of its own.
UMT5 = replace(
    MT5,
    name="umt5",
    architecture="UMT5Model",
    encoder_architecture="UMT5EncoderModel",
    fixed=FIXED,
    rules=(width_rule(6), feed_forward_rule("gated-gelu"), scores_rule(shared=False), *FAMILY.rules[3:]),
    modules={name: module for name, module in FAMILY.modules.items() if "scores" not in name},
    numbered={f"{stack}_position_scores_{{}}": _TABLE.format(stack, "{}") for stack in STACKS},
    heads=heads("UMT5"),
)
