"""Configs: JSON both ways, nested changes, and every wrong value refused by name."""

import json

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tfxformer.models import PRESETS, HeadConfig, StackConfig, TransformerConfig, preset


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
        ({"encoder__num_heads": 5}, r"hidden_size \(32\) must be a multiple of num_heads \(5\), or head_size"),
        ({"encoder__num_key_value_heads": 3}, "must be a multiple of num_key_value_heads"),
        ({"encoder__activation": "gleu"}, "Unknown activation 'gleu'"),
        ({"heads__classifier_activation": "gleu"}, "Unknown activation 'gleu'"),
        ({"heads__masked_lm_activation": "gleu"}, "Unknown activation 'gleu'"),
        ({"encoder__norm_position": "both"}, "Unknown norm_position 'both'; known: post, pre"),
        ({"encoder__position_mode": "rope"}, "Unknown position_mode 'rope'"),
        ({"encoder__dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"encoder__stochastic_depth": -0.1}, "stochastic_depth must be in"),
        ({"encoder__layer_groups": 3}, "must be a multiple of layer_groups"),
        ({"encoder__layer_groups": 0}, "must be a multiple of layer_groups"),
        ({"embedding_size": 16, "embedding_projection": False}, "the embeddings need a projection"),
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
