"""Nomic BERT (Nussbaum et al., 2024, arXiv:2402.01613): BERT with rotary positions and gated halves."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import read_rotary, rotary_parameters, stated


def turning_rule(base: float, longest: int, older: str = "rope_theta") -> Rule:
    """The rule of `encoder.attention.rotary`; `older` is the base's key outside of the parameters."""

    def read(reference: Mapping) -> dict:
        given = reference.get("rope_scaling") or reference.get("rope_parameters") or {}
        parameters = {"rope_theta": base, **stated({"rope_theta": reference.get(older)}), **stated(given)}
        positions = reference.get("max_position_embeddings") or longest
        return {"encoder.attention.rotary": read_rotary(parameters, None, positions)}

    def write(config) -> dict:
        rotary = config.encoder.attention_of(0).rotary
        return {} if rotary is None else {"rope_parameters": rotary_parameters(rotary)}

    return Rule(("rope_parameters", "rope_scaling", older), read, write)


WIDTH = Rule(
    ("head_dim",),
    lambda reference: {"encoder.attention.width": reference.get("head_dim")},
    lambda config: {"head_dim": config.encoder.head_width},
)
FIXED = {**bert.FIXED, "encoder.feed_forward.gated": True, "encoder.feed_forward.bias": False}
EMBEDDINGS = {layer: module for layer, module in bert.EMBEDDINGS.items() if layer != "position_embedding"}
_HEADS = ("text-classification", "token-classification", "masked-lm")


def heads(classes: str, masked_lm: Mapping) -> dict:
    """BERT's heads for texts and words, by this family's classes, and its own for hidden tokens."""
    found = {
        task: replace(
            bert.FAMILY.heads[task], architecture=bert.FAMILY.heads[task].architecture.replace("Bert", classes)
        )
        for task in _HEADS
    }
    return {**found, "masked-lm": replace(found["masked-lm"], modules=masked_lm)}


def parts(name: str, layers: tuple[str, ...]) -> dict[str, Module]:
    """Layers as equal parts of one module."""
    return {layer: Module(name, part=part, sizes=(1,) * len(layers)) for part, layer in enumerate(layers)}


PROJECTIONS = tuple(f"self_attention/{name}" for name in ("query", "key", "value"))

FAMILY = replace(
    bert.FAMILY,
    name="nomic_bert",
    prefix="nomic_bert.",
    architecture="NomicBertModel",
    keys={
        **bert.KEYS,
        "vocabulary_size": Key("vocab_size", 30528),
        # The second names are those of the published folders, which GPT-2's code once read.
        "encoder.num_layers": Key("num_hidden_layers", 12, ("n_layer",)),
        "encoder.hidden_size": Key("hidden_size", 768, ("n_embd",)),
        "encoder.attention.heads": Key("num_attention_heads", 12, ("n_head",)),
        "encoder.feed_forward.size": Key("intermediate_size", 3072, ("n_inner",)),
        "encoder.feed_forward.activation": Key("hidden_act", "silu"),
        "encoder.norm.epsilon": Key("layer_norm_eps", 1e-12, ("layer_norm_epsilon",)),
        "encoder.max_positions": Key("max_position_embeddings", 2048, ("n_positions",)),
        "encoder.dropout": Key("hidden_dropout_prob", 0.0),
        "encoder.attention_dropout": Key("attention_probs_dropout_prob", 0.0),
    },
    fixed={**{k: v for k, v in FIXED.items() if k != "encoder.attention.width"}, "encoder.attention.bias": False},
    rules=(turning_rule(1000.0, 2048, "rotary_emb_base"), WIDTH),
    required={
        "tie_word_embeddings": (True, None),
        "activation_function": ("swiglu", None),
        **dict.fromkeys(("prenorm", "parallel_block", "use_rms_norm", "rotary_emb_interleaved"), (False, None)),
        **dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), (False, None)),
        **{"rotary_emb_fraction": (1.0, None), "rotary_scaling_factor": (None,), "rotary_emb_scale_base": (None,)},
    },
    modules={**EMBEDDINGS, "embedding_norm": "emb_ln"},
    blocks={
        "encoder": Blocks(
            lambda config, index: f"encoder.layers.{index}",
            {
                **parts("attn.Wqkv", PROJECTIONS),
                "self_attention/output": "attn.out_proj",
                "attention_norm": "norm1",
                "feed_forward/expand": "mlp.fc11",
                "feed_forward/gate": "mlp.fc12",
                "feed_forward/output": "mlp.fc2",
                "feed_forward_norm": "norm2",
            },
        )
    },
    heads=heads("NomicBert", {**bert.MASKED_LM, "masked_lm_transform/norm": "cls.predictions.transform.layer_norm"}),
)
