"""Configs: JSON both ways, nested changes, and every wrong value refused by name."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import tfxformer
from tfxformer.layers import Rotary
from tfxformer.models import PRESETS, HeadConfig, StackConfig, TransformerConfig, preset
from tfxformer.models.switches import check_switches


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder__num_heads": True}, "num_heads must be a positive int, not True"),
        ({"encoder__num_key_value_heads": 0}, "num_key_value_heads must be positive or None, not 0"),
        ({"encoder__head_size": -4}, "head_size must be positive or None, not -4"),
        ({"encoder__sliding_window": 0}, "sliding_window must be positive or None, not 0"),
        ({"encoder__norm_epsilon": float("nan")}, "norm_epsilon must be a finite number"),
        ({"encoder__dropout": float("nan")}, "dropout must be"),
        ({"encoder__gated": "false"}, "gated must be True or False, not 'false'"),
        ({"encoder__attention_bias": 1}, "attention_bias must be True or False, not 1"),
        ({"encoder__layers_per_group": 2}, "layers_per_group=2 says nothing without layer_groups"),
        ({"heads__classifier_dropout": 1.5}, "classifier_dropout must be"),
        ({"heads__tied": None}, "tied must be True or False, not None"),
        ({"vocabulary_size": 110.0}, "vocabulary_size must be an int, not 110.0"),
        ({"embedding_size": -1}, "embedding_size must be positive or None, not -1"),
        ({"initializer_range": float("inf")}, "initializer_range must be"),
        ({"encoder": {"num_layers": 2}}, "encoder must be a StackConfig"),
    ],
)
def test_values_of_another_kind_or_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.config().replace(**changes)


# ---- every switch is computed or refused ------------------------------------------------------------------------

# Another value of each switch, on a tiny model; what a switch needs beside it stands there too.
STACK = {
    "num_layers": {"num_layers": 1},
    "hidden_size": {"hidden_size": 64},
    "num_heads": {"num_heads": 2},
    "feed_forward_size": {"feed_forward_size": 40},
    "num_key_value_heads": {"num_key_value_heads": 2},
    "head_size": {"head_size": 16},
    "activation": {"activation": "relu"},
    "gated": {"gated": True},
    "attention_bias": {"attention_bias": False},
    "feed_forward_bias": {"feed_forward_bias": False},
    "attention_output_bias": {"attention_output_bias": False},
    "scale_attention": {"scale_attention": False},
    "scale_attention_by_layer": {"scale_attention_by_layer": True},
    "sliding_window": {"sliding_window": 2},
    "windowed_layers": {"sliding_window": 2, "windowed_layers": (True, False)},
    "causal": {"causal": False},
    "norm": {"norm": "rms"},
    "norm_position": {"norm_position": "parallel"},
    "norm_epsilon": {"norm_epsilon": 0.5},
    "embedding_norm": {},
    "final_norm": {},
    "positions": {"positions": "alibi"},
    "max_positions": {"max_positions": 40},
    "position_mode": {"position_mode": "nonpad_cumsum"},
    "position_offset": {"position_offset": 2},
    "rotary": {"positions": "rotary", "rotary": Rotary()},
    "layer_groups": {"layer_groups": 1},
    "layers_per_group": {"layer_groups": 1, "layers_per_group": 2},
}
WHOLE = {
    "vocabulary_size": {"vocabulary_size": 120},
    "embedding_size": {"embedding_size": 16},
    "token_table_rank": {"token_table_rank": 4},
    "embedding_projection": {"embedding_projection": True},
    "embedding_projection_bias": {"embedding_size": 16, "embedding_projection_bias": False},
    "output_projection": {"embedding_size": 16, "output_projection": True},
    "token_types": {"token_types": 3},
    "heads__pooler": {},
    "heads__masked_lm_activation": {"heads__masked_lm_activation": "relu"},
    "heads__tied": {"heads__tied": False},
}
# Seen in training, when weights are made, in tasks' heads, or by who reads a checkpoint.
NOT_OF_THE_GRAPH = {
    "family", "encoder", "decoder", "heads", "padding_id", "initializer_range", "dropout", "attention_dropout",
    "embedding_dropout", "stochastic_depth", "heads__classifier_activation", "heads__classifier_dropout",
    "heads__classifier_bias",
}  # fmt: skip


def built(config):
    """(variables' shapes, outputs on one batch), every weight the same function of its path."""
    model = tfxformer.models.make_backbone(config)
    variables = [variable for variable in model.variables if variable.name != "seed_generator_state"]
    for variable in variables:
        generator = np.random.default_rng(list(variable.path.encode()))
        variable.assign(generator.normal(0.5, 0.3, variable.shape))
    outputs = model(tiny.inputs_for(model, rows=2, length=8))
    shapes = {variable.path: tuple(variable.shape) for variable in variables}
    return shapes, {name: np.asarray(array) for name, array in outputs.items()}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_switch_changes_the_model_or_is_refused_by_it(family):
    config = tiny.config(family)
    kind = "encoder" if config.decoder is None else "decoder"
    flips = {"embedding_norm": f"{kind}__embedding_norm", "final_norm": f"{kind}__final_norm"}
    cases = {name: {f"{kind}__{key}": value for key, value in changes.items()} for name, changes in STACK.items()}
    for name, path in flips.items():
        cases[name] = {path: not getattr(config.stack, name)}
    cases |= {**WHOLE, "heads__pooler": {"heads__pooler": not config.heads.pooler}}
    names = {one.name for one in dataclasses.fields(StackConfig)} | {one.name for one in dataclasses.fields(config)}
    names |= {f"heads__{one.name}" for one in dataclasses.fields(config.heads)}
    assert names == set(cases) | NOT_OF_THE_GRAPH  # a new switch gets a line here
    shapes, outputs = built(config)
    silent = []
    for name, changes in cases.items():
        other = config.replace(**changes)
        # What the case needs beside its switch is there in what it is compared with.
        base = changes if len(changes) == 1 else {k: v for k, v in changes.items() if not k.endswith(name)}
        before = (shapes, outputs)
        if len(changes) > 1 and name not in ("windowed_layers", "rotary", "layers_per_group"):
            before = built(config.replace(**base))
        try:
            after = built(other)
        except ValueError as error:
            assert "does not compute" in str(error), (name, error)
            continue
        same = after[0] == before[0] and all(
            after[1][key].shape == array.shape and np.allclose(after[1][key], array, atol=1e-6)
            for key, array in before[1].items()
        )
        if same:
            silent.append(name)
    # Of heads that tasks make: MaskedLM reads the one, CausalLM the other.
    assert silent == (["heads__masked_lm_activation"] if kind == "encoder" else ["heads__tied"])


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_computed_by_its_model(name):
    config = preset(name)
    check_switches(config, "Encoder" if config.decoder is None else "Decoder")


def test_a_model_names_the_switches_that_it_does_not_compute():
    with pytest.raises(ValueError, match=r"Encoder does not compute encoder__sliding_window=4 .*output_proj"):
        tiny.backbone("bert", encoder__sliding_window=4, output_projection=True)
    with pytest.raises(ValueError, match=r"Decoder does not compute token_types=2 \(it computes 0\)"):
        tiny.backbone("gpt2", token_types=2)
    with pytest.raises(ValueError, match="no encoder, which the Encoder is made of"):
        tfxformer.models.Encoder(tiny.config("gpt2"))
