"""Configs: JSON both ways, nested changes, and every wrong value refused by name."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import tfxformer
from tfxformer.layers import Rotary, Scores
from tfxformer.models import (
    PRESETS,
    AttentionConfig,
    FeedForwardConfig,
    HeadConfig,
    NormConfig,
    StackConfig,
    TransformerConfig,
    preset,
)
from tfxformer.models.config.computed import check_switches, model_of
from tfxformer.models.config.stack import MIXERS


@pytest.mark.parametrize("name", list(PRESETS))
def test_json_both_ways(name):
    config = preset(name)
    assert TransformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_replace_reaches_nested_switches():
    config = tiny.config("albert").replace(encoder__dropout=0.3, heads__pooler=False, vocabulary_size=50)
    assert (config.encoder.dropout, config.heads.pooler, config.vocabulary_size) == (0.3, False, 50)
    assert config.encoder.layer_groups == 1 and config.replace() == config
    assert tiny.config().replace(encoder=config.encoder).encoder is config.encoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size must be positive"),
        ({"token_types": -1}, "token_types must not be negative"),
        ({"padding_id": 110}, r"padding_id \(110\) must be an id of the vocabulary"),
        ({"encoder__num_layers": 0}, "num_layers must be a positive int, not 0"),
        ({"encoder__hidden_size": 32.0}, "hidden_size must be a positive int"),
        ({"encoder__attention__heads": 5}, r"hidden_size \(32\) must be a multiple of heads \(5\), or width"),
        ({"encoder__attention__key_value_heads": 3}, "must be a multiple of key_value_heads"),
        ({"encoder__feed_forward__activation": "gleu"}, "Unknown activation 'gleu'"),
        ({"heads__classifier_activation": "gleu"}, "Unknown activation 'gleu'"),
        ({"heads__masked_lm_activation": "gleu"}, "Unknown activation 'gleu'"),
        ({"encoder__norm__placement": "both"}, "Unknown norm placement 'both'; known: post, pre"),
        (
            {"encoder__norm": {"embedding": False, "positions": False}},
            "positions=False says nothing with embedding=False",
        ),
        ({"encoder__position_mode": "rope"}, "Unknown position_mode 'rope'"),
        ({"encoder__dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"encoder__stochastic_depth": -0.1}, "stochastic_depth must be in"),
        ({"encoder__layer_groups": 3}, "must be a multiple of layer_groups"),
        ({"encoder__layer_groups": 0}, "must be a multiple of layer_groups"),
        ({"encoder__embedding_convolution": 4}, "A convolution reads as many tokens on either side: size=4 is even"),
        ({"encoder__embedding_convolution": {"size": 3, "activation": "gleu"}}, "Unknown activation 'gleu'"),
        ({"embedding_size": 16, "embedding_projection": False}, "the embeddings need a projection"),
        ({"initializer": "fan_out"}, "Unknown initializer 'fan_out'; known: normal, fan_in"),
        ({"initializer": "fan_in", "initializer_range": 0}, "initializer='fan_in' needs a positive initializer_range"),
    ],
)
def test_wrong_values(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.config().replace(**changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder__droput", r"'encoder__droput' \(did you mean encoder__dropout\?\)"),
        ("decoder__dropout", r"'decoder__dropout' \(did you mean encoder__dropout\?\)"),
        ("familly", r"'familly' \(did you mean family\?\)"),
        ("num_hidden_layers", r"\(did you mean encoder__num_layers\?\)"),
        ("hidden_dropout_prob", r"\(did you mean encoder__dropout\?\)"),
    ],
)
def test_unknown_switches_are_refused_as_keywords(name, message):
    with pytest.raises(TypeError, match=message):
        tiny.config().replace(**{name: 0.1})
    values = tiny.config().to_dict()
    with pytest.raises(ValueError, match=r"StackConfig has no num_hidden_layers .*did you mean num_layers"):
        TransformerConfig.from_dict({**values, "encoder": {**values["encoder"], "num_hidden_layers": 2}})


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"Unknown preset 'bert-huge'; known: bert-tiny, .*from_pretrained"):
        preset("bert-huge")


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_block_order_is_the_reference_formula(groups, layers_per_group_of_weights, inner):
    """Layer i runs group int(i / (L / G)), all its inner layers (ALBERT)."""
    layers = groups * layers_per_group_of_weights
    stack = StackConfig(layers, 8, 2, 8, layer_groups=groups, layers_per_group=inner)
    wanted = tuple(int(i / (layers / groups)) * inner + j for i in range(layers) for j in range(inner))
    assert stack.block_order == wanted
    assert StackConfig(layers, 8, 2, 8).block_order == tuple(range(layers))


def test_derived_sizes():
    roberta = tiny.config("roberta")
    assert (roberta.padding_id, roberta.max_sequence_length) == (1, 62)
    assert tiny.config().max_sequence_length == 64
    albert, electra = tiny.config("albert"), tiny.config("electra")
    assert albert.table_size == electra.table_size == 16
    assert electra.has_embedding_projection and not tiny.config().has_embedding_projection
    assert tiny.config("albert", embedding_size=32).has_embedding_projection  # ALBERT has one even then
    assert HeadConfig().masked_lm_activation is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder__attention__heads": True}, "heads must be a positive int, not True"),
        ({"encoder__attention__key_value_heads": 0}, "key_value_heads must be positive or None, not 0"),
        ({"encoder__attention__width": -4}, "width must be positive or None, not -4"),
        ({"encoder__attention__window": 0}, "window must be positive or None, not 0"),
        ({"encoder__norm__epsilon": float("nan")}, "epsilon must be a finite number"),
        ({"encoder__dropout": float("nan")}, "dropout must be"),
        ({"encoder__feed_forward__gated": "false"}, "gated must be True or False, not 'false'"),
        ({"encoder__attention__bias": 1}, "bias must be True or False, not 1"),
        ({"encoder__layers_per_group": 2}, "layers_per_group=2 says nothing without layer_groups"),
        ({"heads__classifier_dropout": 1.5}, "classifier_dropout must be"),
        ({"heads__tied": None}, "tied must be True or False, not None"),
        ({"vocabulary_size": 110.0}, "vocabulary_size must be an int, not 110.0"),
        ({"embedding_size": -1}, "embedding_size must be positive or None, not -1"),
        ({"initializer_range": float("inf")}, "initializer_range must be"),
        ({"encoder": {"num_layers": 2}}, "encoder must be a StackConfig"),
        ({"encoder__convolution": 3}, "Layers are of the kinds full, convolution: give pattern"),
        (
            {"encoder__convolution": 1, "encoder__pattern": "convolution"},
            "width=1: a convolution sees at least 2 tokens",
        ),
        (
            {"encoder__convolution": 3, "encoder__pattern": "convolution"},
            "no layer of attention: at least one is needed",
        ),
        (
            {"encoder__delta_rule": {"key_heads": 2, "value_heads": 3}, "encoder__pattern": ("delta_rule", "full")},
            r"value_heads \(3\) must be a multiple of key_heads",
        ),
        ({"encoder__pattern": ("convolution", "full")}, r"names kinds of layers; there are full\."),
        (
            {"encoder__attention": {"convolution": {}}, "encoder__pattern": "convolution"},
            "call no kind of attention so",
        ),
        (
            {"encoder__convolution": 3, "encoder__pattern": ("convolution", "full"), "encoder__layer_groups": 1},
            "layers that share their weights are of one kind",
        ),
    ],
)
def test_values_of_another_kind_or_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.config().replace(**changes)


# ---- every switch is computed or refused ------------------------------------------------------------------------

# Another value of each switch, on a tiny model; what a switch needs beside it stands there too.
STACK = {
    "num_layers": {"num_layers": 2},
    "hidden_size": {"hidden_size": 64},
    "pattern": {"attention": {"full": {}, "local": {"window": 2}}, "pattern": ("full", "local")},
    "convolution": {"convolution": {"width": 2}, "pattern": ("convolution", "full")},
    "delta_rule": {
        "delta_rule": {"key_heads": 2, "value_heads": 4, "key_width": 6, "value_width": 5},
        "pattern": ("delta_rule", "full"),
    },
    "positions": {"positions": "none"},
    "max_positions": {"max_positions": 40},
    "position_mode": {"position_mode": "nonpad_cumsum"},
    "position_offset": {"position_offset": 2},
    "embedding_scale": {"embedding_scale": 3.0},
    "residual_scale": {"residual_scale": 0.5},
    "layer_groups": {"layer_groups": 1},
    "embedding_convolution": {"embedding_convolution": 3},
    "bottleneck": {"norm__placement": "post", "bottleneck": 8},
    "layers_per_group": {"layer_groups": 1, "layers_per_group": 2},
    "attention__heads": {"attention__heads": 2},
    "attention__key_value_heads": {"attention__key_value_heads": 2},
    "attention__width": {"attention__width": 16},
    "attention__scale": {"attention__scale": 1.0},
    "attention__scale_by_layer": {"attention__scale_by_layer": True},
    "attention__window": {"attention__window": 2},
    "attention__causal": {},
    "attention__rotary": {"attention__rotary": Rotary()},
    "attention__query_key_norm": {"attention__query_key_norm": "head"},
    "attention__soft_cap": {"attention__soft_cap": 0.5},
    "attention__clip": {"attention__clip": 0.05},
    "attention__scores": {"attention__scores": Scores("alibi")},
    "attention__bias": {"attention__bias": False},
    "attention__output_bias": {"attention__output_bias": False},
    "attention__key_bias": {"attention__key_bias": False},
    "attention__gated": {"attention__gated": True},
    "feed_forward__size": {"feed_forward__size": 40},
    "feed_forward__activation": {"feed_forward__activation": "relu"},
    "feed_forward__gated": {"feed_forward__gated": True},
    "feed_forward__bias": {"feed_forward__bias": False},
    "feed_forward__output_bias": {"feed_forward__output_bias": False},
    "norm__placement": {"norm__placement": "parallel"},
    "norm__kind": {"norm__kind": "rms"},
    "norm__epsilon": {"norm__epsilon": 0.5},
    "norm__bias": {"norm__bias": False},
    "norm__embedding": {},
    "norm__final": {},
    "norm__first": {"norm__placement": "pre", "norm__first": False},
    "norm__positions": {"norm__embedding": True, "norm__positions": False},
}
# What these change is seen in two layers; one layer shows the others in half the time.
OF_TWO_LAYERS = {
    "pattern", "layer_groups", "layers_per_group", "attention__scale_by_layer", "feed_forward__activation", *MIXERS,
}  # fmt: skip
WHOLE = {
    "vocabulary_size": {"vocabulary_size": 120},
    "source_vocabulary_size": {"source_vocabulary_size": 120},
    "embedding_size": {"embedding_size": 16},
    "token_table_rank": {"token_table_rank": 4},
    "embedding_projection": {"embedding_projection": True},
    "embedding_projection_bias": {"embedding_size": 16, "embedding_projection_bias": False},
    "output_projection": {"embedding_size": 16, "output_projection": True},
    "embedding_projection_first": {"embedding_size": 16, "embedding_projection_first": True},
    "embedding_neighbours": {"embedding_projection_first": True, "embedding_neighbours": True},
    "hidden_token": {"hidden_token": True},
    "token_types": {"token_types": 3},
    "task_types": {"task_types": 2},
    "heads__pooler": {},
    "heads__masked_lm_activation": {"heads__masked_lm_activation": "relu"},
    "heads__masked_lm_transform": {"heads__masked_lm_transform": False},
    "heads__masked_lm_bias": {"heads__masked_lm_bias": False},
    "heads__masked_lm_split": {"heads__masked_lm_split": True},
    "heads__tied": {"heads__tied": False},
    "heads__logit_scale": {"heads__logit_scale": 2.0},
    "heads__logit_soft_cap": {"heads__logit_soft_cap": 2.0},
    "heads__logits_bias": {"heads__logits_bias": True},
}
# Seen in training, when weights are made, in tasks' heads, or by who reads a checkpoint.
NOT_OF_THE_GRAPH = {
    "family", "encoder", "decoder", "heads", "padding_id", "initializer_range", "initializer", "dropout",
    "attention_dropout", "embedding_dropout", "stochastic_depth", "heads__classifier_activation",
    "heads__classifier_dropout", "heads__classifier_bias", "heads__classifier_wraps", "heads__classifier_pooling",
    "heads__transform", "heads__transform_bias", "heads__classifier_reads_pooler",
}  # fmt: skip


def built(config):
    """(variables' shapes, outputs on one batch), every weight the same function of its path."""
    model = tfxformer.build(config)
    variables = [variable for variable in model.variables if variable.name != "seed_generator_state"]
    for variable in variables:
        generator = np.random.default_rng(list(variable.path.encode()))
        variable.assign(generator.normal(0.5, 0.3, variable.shape))
    outputs = model(tiny.inputs_for(model, rows=2, length=8))
    shapes = {variable.path: tuple(variable.shape) for variable in variables}
    return shapes, {name: np.asarray(array) for name, array in outputs.items()}


def switches(cls, prefix):
    return {f"{prefix}{one.name}" for one in dataclasses.fields(cls)}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_switch_changes_the_model_or_is_refused_by_it(family):
    ((kind, stack),) = tiny.config(family).stacks.items()
    one, two = (tiny.config(family, **{f"{kind}__num_layers": layers}) for layers in (1, 2))
    cases = {name: {f"{kind}__{key}": value for key, value in changes.items()} for name, changes in STACK.items()}
    cases["norm__embedding"] = {f"{kind}__norm__embedding": not stack.norm.embedding}
    cases["norm__final"] = {f"{kind}__norm__final": not stack.norm.final}
    cases["attention__causal"] = {f"{kind}__attention__causal": not stack.causal}
    cases |= {**WHOLE, "heads__pooler": {"heads__pooler": not one.heads.pooler}}
    names = switches(StackConfig, "") - {"attention", "feed_forward", "norm"}
    names |= switches(AttentionConfig, "attention__") | switches(FeedForwardConfig, "feed_forward__")
    names |= switches(NormConfig, "norm__") | switches(TransformerConfig, "") | switches(HeadConfig, "heads__")
    assert names == set(cases) | NOT_OF_THE_GRAPH  # a new switch gets a line here
    of_one, of_two, silent = built(one), built(two), []
    for name, changes in cases.items():
        config, before = (two, of_two) if name in OF_TWO_LAYERS else (one, of_one)
        try:
            if len(changes) > 1 and name not in ("pattern", "layers_per_group", *MIXERS):
                # What the case needs beside its switch is there in what it is compared with.
                before = built(config.replace(**{k: v for k, v in changes.items() if not k.endswith(name)}))
            after = built(config.replace(**changes))
        except ValueError as error:
            assert "does not compute" in str(error), (name, error)
            continue
        same = after[0] == before[0] and all(
            after[1][key].shape == array.shape and np.allclose(after[1][key], array, atol=1e-6)
            for key, array in before[1].items()
        )
        if same:
            silent.append(name)
    # Of heads that tasks make: MaskedLM reads the one, CausalLM the others.
    of_tasks = ["heads__tied", "heads__logit_scale", "heads__logit_soft_cap", "heads__logits_bias"]
    of_masked = ["heads__masked_lm_activation", "heads__masked_lm_transform", "heads__masked_lm_bias"]
    of_masked += ["heads__masked_lm_split", "heads__tied"]
    assert silent == (of_masked if kind == "encoder" else of_tasks)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_computed_by_its_model(name):
    config = preset(name)
    check_switches(config, model_of(config))


def test_a_model_names_the_switches_that_it_does_not_compute():
    with pytest.raises(ValueError, match=r"Encoder does not compute heads__logit_scale=2.0"):
        tiny.backbone("bert", heads__logit_scale=2.0)
    with pytest.raises(ValueError, match=r"Decoder does not compute token_types=2 \(it computes 0\)"):
        tiny.backbone("gpt2", token_types=2)
    with pytest.raises(
        ValueError, match="has a decoder, which the Decoder computes; the Encoder is made of an encoder"
    ):
        tfxformer.models.Encoder(tiny.config("gpt2"))
