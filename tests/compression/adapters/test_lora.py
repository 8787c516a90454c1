"""What a LoRA is, and which layers it chooses."""

import keras
import pytest
from adapter_cases import classifier, everything, language_model

from tfxformer.compression import LoRA


def paths(lora, model):
    return [kernel.layer.path for kernel in lora.kernels(model)]


def test_scale():
    assert LoRA(rank=4).scale == 1.0
    assert LoRA(rank=4, alpha=16).scale == 4.0
    assert LoRA(rank=4, alpha=16, rslora=True).scale == 8.0


def test_default_targets_are_all_but_the_outputs():
    names = [f"self_attention/{name}" for name in ("query", "key", "value", "output")]
    names += ["feed_forward/expand", "feed_forward/output"]
    blocks = {f"encoder_block_{index}/{name}" for index in (0, 1) for name in names}
    assert set(paths(LoRA(), classifier())) == blocks | {"pooler"}
    assert set(paths(LoRA(also_train=()), classifier())) == blocks | {"pooler"}  # nor is the head adapted
    untied = paths(LoRA(), language_model(heads__tied=False))
    assert len(untied) == 2 * 7 and "language_model_head" not in untied  # a gate in each block of Llama


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        ("key", 2),
        (("feed_forward/output",), 2),
        (("output",), 4),
        (("encoder_block_1/self_attention/output", "pooler"), 2),
        (lambda layer: "feed_forward" in layer.path, 4),
        (everything, 13),  # six a block, and the pooler: the head is trained whole
    ],
)
def test_targets(targets, count):
    assert len(paths(LoRA(targets=targets), classifier())) == count


def test_what_is_trained_whole():
    def names(lora, model):
        return {variable.path for layer in lora.whole_layers(model) for variable in layer._trainable_variables}

    assert names(LoRA(), classifier()) == {"classifier/output/kernel", "classifier/output/bias"}
    assert names(LoRA(), language_model()) == names(LoRA(also_train=()), classifier()) == set()
    norms = names(LoRA(also_train=("attention_norm",)), classifier())
    assert norms == {f"encoder_block_{i}/attention_norm/{name}" for i in (0, 1) for name in ("gamma", "beta")}
    assert len(paths(LoRA(targets=everything, also_train=()), classifier())) == 14  # now the head has factors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank .* got 0"),
        ({"rank": -2}, "rank .* got -2"),
        ({"rank": 1.5}, "rank .* got 1.5"),
        ({"rank": True}, "rank .* got True"),
        ({"alpha": 0}, "alpha .* got 0"),
        ({"alpha": float("nan")}, "alpha .* got nan"),
        ({"dropout": 1.0}, "dropout .* got 1.0"),
        ({"dropout": "a"}, "dropout .* got 'a'"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**arguments)


@pytest.mark.parametrize("field", ["targets", "also_train"])
def test_names_of_another_kind(field):
    with pytest.raises(TypeError, match=f"{field} are names"):
        LoRA(**{field: (3,)})


def test_no_layer_matches():
    with pytest.raises(ValueError, match=r"'q_proj',.*match no layer.*named expand, key, output, pooler, query, value"):
        LoRA(targets="q_proj").kernels(classifier())
    with pytest.raises(ValueError, match=r"also_train=\('head',\) matches no layer"):
        LoRA(also_train="head").kernels(classifier())
    with pytest.raises(ValueError, match="has no Dense or EinsumDense layer but its outputs"):
        LoRA().kernels(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    images = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 2)])
    with pytest.raises(ValueError, match=r"targets=everything match no layer .*\(there are none\)"):
        LoRA(targets=everything).kernels(images)
