"""Which variables are trained beside adapters, and what a config says of them."""

import json

import pytest
import tiny

import tfxformer
from tfxformer.layers.adapters.base import attach
from tfxformer.layers.adapters.low_rank import LowRank
from tfxformer.models.adapted import collect_adapters, describe_adapters, restore_adapters, train_all, train_only


def adapted():
    model = tiny.backbone("bert")
    query = model.get_layer("encoder_block_1").self_attention.query
    attach(query, LowRank(3, 0.5, dropout=0.1, index=4, name="films"))
    return model, query


def trained(model):
    return {variable.path for variable in model.trainable_variables}


FACTORS = {f"encoder_block_1/self_attention/query/films/lora_{name}" for name in "ab"}


def test_what_is_trained():
    model, query = adapted()
    everything = trained(model)
    model.get_layer("pooler").trainable = False
    train_only(model, [query.base_bias])
    assert trained(model) == FACTORS | {"encoder_block_1/self_attention/query/bias"}
    train_all(model)  # but what its layer does not train
    assert trained(model) == {path for path in everything if not path.startswith("pooler/")}


def test_description_makes_the_same_model():
    model, query = adapted()
    train_only(model, [query.base_bias])
    described = json.loads(json.dumps(describe_adapters(model)))
    again = tfxformer.build(tiny.config("bert"))
    assert describe_adapters(again) == {}
    restore_adapters(again, collect_adapters(described))
    assert not described
    assert trained(again) == trained(model)
    other = again.get_layer("encoder_block_1").self_attention.query.adapter
    assert other.arguments() == query.adapter.arguments() == {
        "kind": "low_rank", "name": "films", "rank": 3, "scale": 0.5, "dropout": 0.1, "index": 4
    }  # fmt: skip
    assert restore_adapters(again, None) is again


def test_a_description_of_another_model():
    model, _ = adapted()
    described = collect_adapters(describe_adapters(model))
    with pytest.raises(ValueError, match="adapter for 'encoder_block_1/self_attention/query', a layer that"):
        restore_adapters(tiny.backbone("bert", encoder__num_layers=1), described)
