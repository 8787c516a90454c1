"""What cannot be distilled is refused before training, with the way out."""

import keras
import pytest
import tiny
from distillation_cases import classifier, language_model

from tfxformer import tasks
from tfxformer.compression import (
    AttentionLoss,
    Distiller,
    EmbeddingLoss,
    HiddenStateLoss,
    LogitsLoss,
    RelationLoss,
    student_from,
)


def other(**changes):
    return classifier(layers=2, seed=5, **changes)


@pytest.mark.parametrize(
    ("changes", "loss", "message"),
    [
        ({"encoder__hidden_size": 64}, HiddenStateLoss(), r"student is 64 wide, its teacher 32\. Pass projection=True"),
        ({"encoder__hidden_size": 16}, HiddenStateLoss(), r"student is 16 wide, its teacher 32\. Pass projection=True"),
        ({}, HiddenStateLoss(layers={1: 5}), r"hidden states 0 to 4 \(0: the embeddings\); the layer map names 5"),
        ({}, HiddenStateLoss(layers={3: 4}), r"hidden states 0 to 2 \(0: the embeddings\); the layer map names 3"),
        ({}, HiddenStateLoss(layers={}), "with one or more"),
        ({}, HiddenStateLoss(layers={"nothing": 1}), "0 layers 'nothing'"),
        ({}, AttentionLoss(layers={2: 1}), "layers 0 to 1; the layer map names 2"),
        ({}, AttentionLoss(layers={"encoder_block_0": 1}), "the layer map names 'encoder_block_0'"),
        ({}, RelationLoss(layers={1: 7}), "layers 0 to 3; the layer map names 7"),
        ({}, RelationLoss(heads=5), "a relation needs one width, which heads=5 divides"),
        (
            {"encoder__attention__heads": 2},
            AttentionLoss(),
            "has 2 heads, the teacher's layer 1 4. RelationLoss compares",
        ),
        ({}, EmbeddingLoss(projection=True), None),
        ({"vocabulary_size": 120}, LogitsLoss(), "vocabulary of 120, its teacher one of 110"),
    ],
)
def test_losses_that_do_not_fit(changes, loss, message):
    teacher = classifier()
    if message is None:
        Distiller(other(**changes), teacher, [loss])
        return
    with pytest.raises(ValueError, match=message):
        Distiller(other(**changes), teacher, [loss])


def test_a_student_of_more_blocks_than_its_teacher():
    with pytest.raises(ValueError, match="A student of 4 layers has no even map to a teacher of 2"):
        Distiller(classifier(), other(), [HiddenStateLoss()])


def test_models_that_do_not_fit(tiny_tokenizer, tmp_path):
    teacher = classifier(tiny_tokenizer)
    three = tasks.TextClassifier(tiny.backbone(), ["a", "b", "c"], tokenizer=tiny_tokenizer)
    with pytest.raises(ValueError, match=r"student gives \(None, 3\), the teacher \(None, 2\)"):
        Distiller(three, teacher)
    turned = tasks.TextClassifier(tiny.backbone(), ["positive", "negative"], tokenizer=tiny_tokenizer)
    with pytest.raises(ValueError, match="have other labels"):
        Distiller(turned, teacher)
    (tmp_path / "vocab.txt").write_text("\n".join([*tiny.SPECIAL, "word"]), encoding="utf-8")
    foreign = classifier(type(tiny_tokenizer).from_vocabulary(tmp_path / "vocab.txt"), layers=2)
    with pytest.raises(ValueError, match="different tokenizers"):
        Distiller(foreign, teacher)
    with pytest.raises(ValueError, match=r"share \d+ weights"):
        Distiller(teacher, teacher)
    with pytest.raises(ValueError, match=r"teacher reads \['padding_mask', 'segment_ids', 'token_ids'\]"):
        Distiller(language_model()[0], teacher)
    embedder = tasks.TextEmbedder(tiny.backbone())
    with pytest.raises(ValueError, match="give EmbeddingLoss"):
        Distiller(embedder, tasks.TextEmbedder(tiny.backbone()))
    with pytest.raises(ValueError, match="one vector"):
        Distiller(language_model()[0], language_model()[0], [EmbeddingLoss()])

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for unreadable in (Subclassed(), sequential):
        with pytest.raises(TypeError, match="functional Keras model"):
            Distiller(unreadable, teacher)


@pytest.mark.parametrize("end", [keras.layers.Dense(3, "softmax"), keras.layers.Softmax()])
def test_probabilities_are_no_logits(end):
    inputs = keras.Input((3,))
    models = [keras.Model(inputs, keras.layers.Dense(3)(inputs)), keras.Model(inputs, end(inputs))]
    for pair in (models, models[::-1]):
        with pytest.raises(ValueError, match="which makes probabilities of them"):
            Distiller(*pair)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LogitsLoss(temperature=0), ValueError, "temperature must be a number above 0"),
        (lambda: LogitsLoss(weight=-1), ValueError, "weight must be a number above 0"),
        (lambda: LogitsLoss(activation="tanh"), ValueError, "unknown activation 'tanh'"),
        (lambda: HiddenStateLoss(distance="l1"), ValueError, "unknown distance 'l1'; known: 'mse', 'cosine'"),
        (lambda: AttentionLoss(distance="cosine"), ValueError, "known: 'mse', 'kl'"),
        (lambda: RelationLoss(relations=("query",)), ValueError, 'as "query-key"'),
    ],
)
def test_bad_arguments_say_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_bad_arguments_of_the_distiller():
    teacher = classifier()
    student = student_from(teacher, keep=1)
    for losses in ([], ["logits"]):
        with pytest.raises(TypeError, match="Distiller wants losses="):
            Distiller(student, teacher, losses)
    with pytest.raises(ValueError, match="label_weight is a number, 0 or more; got -1"):
        Distiller(student, teacher, label_weight=-1)
