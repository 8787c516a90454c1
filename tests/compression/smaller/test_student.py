"""student_from: the teacher's own layers, fewer of them, and a model like any of its kind."""

import numpy as np
import pytest
import tiny
from distillation_cases import classifier, language_model

import tfxformer
from tfxformer import tasks
from tfxformer.compression import student_from
from tfxformer.layers import padding_bias

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(scope="module")
def teacher():
    """Six layers; no test changes it."""
    return classifier(layers=6)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (3, [1, 3, 5]),
        (2, [2, 5]),
        ([0, 5], [0, 5]),
    ],
)
def test_computes_what_the_kept_blocks_of_the_teacher_compute(keep, kept, teacher):
    student = student_from(teacher, keep)
    batch = tiny.inputs_for(teacher)
    x = teacher.backbone.forward(batch)["hidden_states"][0]
    bias = padding_bias(batch["padding_mask"], -1e9)
    for number in kept:
        x = teacher.backbone.get_layer(f"encoder_block_{number}")(x, bias=bias)
    pooled = teacher.backbone.get_layer("pooler")(x[:, 0])
    wanted = teacher.heads["classifier"](pooled)
    np.testing.assert_allclose(student.logits(batch, verbose=0), np.asarray(wanted), atol=1e-5)
    assert student.backbone.config.encoder.num_layers == len(kept)
    assert not set(map(id, student.variables)) & set(map(id, teacher.variables))


def test_all_blocks_are_the_teacher_itself():
    for family in ("llama", "bloom"):
        teacher, inputs, _, _ = language_model(family)
        same = student_from(teacher, keep=2)
        np.testing.assert_array_equal(same.logits(inputs, verbose=0), teacher.logits(inputs, verbose=0))


def test_saved_and_reopened(tiny_tokenizer, tmp_path):
    student = student_from(classifier(tiny_tokenizer), keep=2)
    loaded = tasks.TextClassifier.from_pretrained(student.save_pretrained(tmp_path / "student"))
    assert loaded.labels == student.labels and loaded.backbone.config.encoder.num_layers == 2
    np.testing.assert_array_equal(loaded.predict(tiny.TEXTS[:3]), student.predict(tiny.TEXTS[:3]))


def test_of_a_checkpoint_its_config_says_the_new_number(tiny_tokenizer, tmp_path):
    classifier(tiny_tokenizer).save_pretrained(tmp_path / "teacher")
    teacher = tasks.TextClassifier.from_pretrained(tmp_path / "teacher")
    student = student_from(teacher, keep=2)
    loaded = tasks.TextClassifier.from_pretrained(student.save_pretrained(tmp_path / "student"))
    np.testing.assert_array_equal(loaded.predict(tiny.TEXTS[:3]), student.predict(tiny.TEXTS[:3]))


def test_windows_go_with_their_layers():
    kinds = {"sliding": {"window": 4}, "full": {"window": None}}
    teacher = tiny.backbone(
        "mistral", decoder__num_layers=4, decoder__attention=kinds, decoder__pattern=("sliding", "full")
    )
    assert student_from(teacher, keep=[0, 3]).config.decoder.kinds == ("sliding", "full")
    assert student_from(teacher, keep=2).config.decoder.attention_of(0).window is None  # those of 1 and 3


def test_shared_blocks():
    teacher = tiny.backbone("albert", encoder__num_layers=4)
    student = student_from(teacher, keep=2)
    batch = tiny.inputs_for(teacher)
    wanted, found = (model.forward(batch)["hidden_states"] for model in (teacher, student))
    for a, b in zip(wanted, found, strict=False):  # the same block, fewer times
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6)
    groups = tiny.backbone("albert", encoder__num_layers=4, encoder__layer_groups=2)
    with pytest.raises(ValueError, match="share the weights of 2 groups"):
        student_from(groups, keep=2)


def test_bad_arguments_say_what_is_wrong():
    import keras

    teacher = tiny.backbone()
    for keep, message in (
        (3, "a teacher of 2: give 1 to 2"),
        (0, "give 1 to 2"),
        ([1, 0], "in ascending order, each once"),
        ([1, 2], "layers of 0 to 1"),
        ([], "layers of 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            student_from(teacher, keep)
    for old in ("num_layers", "layers"):
        with pytest.raises(TypeError, match=rf"'{old}' \(did you mean keep\?\)"):
            student_from(teacher, **{old: 1})
    with pytest.raises(TypeError, match=r"from tfxformer's models: an Encoder, a Decoder.*got .*Sequential"):
        student_from(keras.Sequential([keras.Input((2,))]), keep=1)
    assert isinstance(student_from(teacher, keep=1), tfxformer.models.Encoder)
