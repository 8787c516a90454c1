"""What new weights are drawn from: one deviation for all, or one of each kernel's inputs, as T5 begins."""

import numpy as np
import pytest
import tiny

import tfxformer
from tfxformer import tasks
from tfxformer.models import TransformerConfig, preset

SIZES = {"hidden_size": 64, "attention__heads": 4, "attention__width": 24, "feed_forward__size": 96, "num_layers": 2}
BOTH = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in SIZES.items()}


def near(array, deviation: float) -> bool:
    """Whether numbers may have been drawn from a normal of this deviation: within 5 of its own standard errors."""
    return abs(np.std(array) / deviation - 1) < 5 / np.sqrt(2 * array.size) and abs(np.mean(array)) < deviation / 4


@pytest.mark.parametrize("name", ["t5-small", "flan-t5-small"])
def test_every_kernel_has_the_deviation_of_its_inputs(name):
    model = tasks.Seq2SeqLM(tfxformer.build(name, vocabulary_size=200, initializer_range=0.5, **BOTH))
    width, head, heads, inner = 64, 24, 4, 96
    wanted = {
        "query/kernel": (width * head) ** -0.5,  # T5 does not scale its scores
        "key/kernel": width**-0.5,
        "value/kernel": width**-0.5,
        "attention/output/kernel": (heads * head) ** -0.5,
        "expand/kernel": width**-0.5,
        "gate/kernel": width**-0.5,
        "feed_forward/output/kernel": inner**-0.5,
        "token_embedding/embeddings": 1.0,
        "position_scores/embeddings": width**-0.5,
        "language_model_head/kernel": width**-0.5,
    }
    seen = set()
    for path, array in tiny.weights(model).items():
        end = next((end for end in wanted if path.endswith(end)), None)
        if end is None:
            assert path.endswith("gamma") and (array == 1).all(), path
            continue
        seen.add(end)
        assert near(array, 0.5 * wanted[end]), (path, np.std(array), wanted[end])
    own_head = {"gate/kernel", "language_model_head/kernel"}
    assert seen == set(wanted) - (own_head if name == "t5-small" else set())
    one, other = (model.backbone.blocks[0].self_attention.key, model.backbone.blocks[1].self_attention.key)
    assert not np.array_equal(one.kernel, other.kernel)


def test_scores_that_are_scaled_leave_queries_like_keys():
    model = tfxformer.build(tiny.config("gpt2", initializer="fan_in", initializer_range=1.0, decoder__hidden_size=64))
    weights = tiny.weights(model)
    assert near(weights["decoder_block_0/self_attention/query/kernel"], 64**-0.5)
    assert near(weights["position_embedding/embeddings"], 1.0)


def test_the_product_of_a_factorized_table_is_as_large_as_a_whole_one():
    config = tiny.config("gpt2", initializer="fan_in", initializer_range=1.0, token_table_rank=8, vocabulary_size=400)
    weights = tiny.weights(tfxformer.build(config))
    product = weights["token_embedding/embeddings"] @ weights["token_embedding/projection"]
    assert 0.7 < product.std() < 1.4


def test_configs_of_before_have_one_deviation_for_all():
    older = preset("t5-small").replace(vocabulary_size=200, **BOTH).to_dict()
    del older["initializer"], older["initializer_range"]
    config = TransformerConfig.from_dict(older)
    assert (config.initializer, config.initializer_range) == ("normal", 0.02)
    for path, array in tiny.weights(tfxformer.build(config)).items():
        assert path.endswith("gamma") or 0.0155 < array.std() < 0.0205, path


def test_a_t5_that_began_otherwise_is_saved_too(tmp_path):
    for index, changes in enumerate(({"initializer": "normal", "initializer_range": 0.02}, {"initializer_range": 0.5})):
        model = tasks.Seq2SeqLM(tfxformer.build(tiny.config("t5", **changes)))
        model.save_pretrained(tmp_path / str(index))
        opened = tasks.Seq2SeqLM.from_pretrained(tmp_path / str(index))
        for one, other in zip(model.get_weights(), opened.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        config = opened.backbone.config
        assert (config.initializer, config.initializer_range) == ("fan_in", 0.5 if index else 1.0)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["t5-small", "flan-t5-small"])
def test_deviations_are_those_of_transformers(name, tmp_path):
    import transformers

    scale = {} if name == "flan-t5-small" else {"heads__logit_scale": 64**-0.5}
    model = tasks.Seq2SeqLM(tfxformer.build(name, vocabulary_size=200, **BOTH, **scale))
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.initializer_factor == 1.0
    theirs = transformers.T5ForConditionalGeneration(config).state_dict()
    ours = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        deviation = float(tensor.std(correction=0))
        if key == "lm_head.weight" and name == "flan-t5-small":
            # transformers draws it as a table; Mesh TensorFlow, where T5 was trained, as every other kernel: logits of
            # a deviation of 1, not of the root of D.
            deviation *= 64**-0.5
        if deviation:
            error = np.hypot(1, 1) * 5 / np.sqrt(2 * tensor.numel())
            assert abs(float(ours[key].std(correction=0)) / deviation - 1) < error, key
        else:
            np.testing.assert_array_equal(ours[key], tensor, err_msg=key)  # norms
