"""Arguments that vanished: unknown keywords, an optimizer's arguments, names of batches, values of recipes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from typer.testing import CliRunner

import tfxformer
from tfxformer import compression, export, generation, models, tasks, training
from tfxformer.cli.main import app
from tfxformer.data.files.rows import read_rows
from tfxformer.recipes.sweep import read_recipe

RECIPE = "name: small\nmodel: minilm\ndata: vader_movies\n"

# ---- recipes ----------------------------------------------------------------------------------------------------


def test_recipe_values_are_refused_when_read_all_at_once(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE
        + """
batch_size: 0
dtype: float1
sweep:
  tune: [{epochs: 0, learning_rate: -1}, {learning_rate: .nan, lora: 0}]
  quantize: [int3]
""",
        encoding="utf-8",
    )
    with pytest.raises(ValueError) as refused:
        read_recipe(path)
    # Each value of the finding, by its key: none can be trained or written with.
    for wrong in (
        "sweep.tune[0].epochs=0 must be 1 or more",
        "sweep.tune[0].learning_rate=-1.0 must be a finite number above 0",
        "sweep.tune[1].learning_rate=nan must be a finite number above 0",
        "sweep.tune[1].lora=0 must be 1 or more",
        "sweep.quantize[0]='int3' must be one of float32, float16, dynamic_int8",
        "batch_size=0 must be 1 or more",
        "dtype='float1' must be one of float32",
        "7 errors",
        str(path),
    ):
        assert wrong in str(refused.value)


def test_a_recipe_of_100_4_combinations_is_refused_with_the_count(tmp_path):
    path = tmp_path / "recipe.yaml"
    numbers = ", ".join(f"{{epochs: {epochs}}}" for epochs in range(1, 101))
    layers = ", ".join(f"{{layers: {layers}}}" for layers in range(1, 101))
    path.write_text(
        f"{RECIPE}sweep: {{tune: [{numbers}], structure: [{layers}], distil: [{numbers}], prune: [{numbers}]}}",
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="100,000,000 combinations; at most 1,000"):
        read_recipe(path)


def test_nested_yaml_aliases_are_refused_with_the_count(tmp_path):
    path = tmp_path / "recipe.yaml"
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path.write_text(RECIPE + "\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"values where its aliases are written out; at most 20,000"):
        read_recipe(path)
    path.write_text(RECIPE + "sweep: &a [*a]", encoding="utf-8")
    with pytest.raises(ValueError, match="aliases"):
        read_recipe(path)


def test_recipe_files_must_be_there(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: a\nmodel: minilm\ndata: {train: no.csv, test: none.csv}\nsweep: {quantize: [int8]}", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"2 errors: data.train: there is no file .*no\.csv; data.test"):
        read_recipe(path)


# ---- the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["finetune", "m", "d", "--learning-rate", "nan"],
        ["finetune", "m", "d", "--learning-rate", "-1"],
        ["finetune", "m", "d", "--epochs", "0"],
        ["finetune", "m", "d", "--batch-size", "0"],
        ["finetune", "m", "d", "--dtype", "float1"],
        ["finetune", "m", "d", "--validation", "1.5"],
        ["prune", "m", "d", "--sparsity", "2"],
        ["train-lm", "d", "--learning-rate", "inf"],
        ["export", "m", "o.tflite", "--quantization", "int3"],
        ["generate", "m", "hello", "--top-p", "1.5"],
    ],
    ids=lambda options: " ".join(options[-2:]),
)
def test_command_line_values_are_refused_by_the_name_of_their_option(options):
    output = [] if options[0] in ("export", "generate") else ["--output", "o"]
    result = CliRunner().invoke(app, [*options, *output])
    assert result.exit_code == 2  # as every wrong use of a command; nothing was opened
    assert f"'{options[-2]}'" in result.output


def test_a_column_near_to_a_known_one_is_not_left_out(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("text,textpair\na,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="column 'textpair' is not read; did you mean 'text_pair'"):
        read_rows(path, "text-classification", labelled=False)
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n{"text": "a", "text_pair": "b"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1, column 'text_pair': it is missing"):
        read_rows(path, "text-classification", labelled=False)


# ---- keywords ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    return tiny.backbone("bert", encoder__num_layers=1)


@pytest.fixture(scope="module")
def classifier(encoder, tmp_path_factory):
    tokenizer = tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return tasks.TextClassifier(encoder, ["negative", "positive"], tokenizer=tokenizer, sequence_length=8)


def test_misspelt_keyword_of_a_task_is_refused_with_the_near_name(encoder):
    with pytest.raises(TypeError, match=r"takes no 'sequence_lenght' \(did you mean sequence_length\?\)"):
        tasks.TextClassifier(encoder, ["a", "b"], sequence_lenght=8)


@pytest.mark.parametrize(
    ("task", "said", "ours"),
    [
        ("TextClassifier", {"num_labels": 3}, "did you mean labels"),
        ("TextClassifier", {"max_length": 128}, "did you mean sequence_length"),
        ("TextClassifier", {"problem_typ": "regression"}, "did you mean problem_type"),
        ("TextClassifier", {"dropout": 0.5}, "'dropout'"),
        ("TextClassifier", {"num_labels": None}, "did you mean labels"),
        ("QuestionAnswering", {"doc_stride": 64}, "did you mean overlap"),
        ("MaskedLM", {"mlm_probability": 0.4}, "did you mean masking_rate"),
        ("CausalLM", {"torch_dtype": "bfloat16"}, "did you mean dtype"),
        ("TextEmbedder", {"pooling_mode": "cls"}, "did you mean pooling"),
    ],
)
def test_from_pretrained_names_our_word_before_it_opens_anything(task, said, ours):
    with pytest.raises(TypeError, match=ours):  # of a folder that is not there: it was not opened
        getattr(tasks, task).from_pretrained("no-folder", **said)


def test_our_words_are_named_wherever_transformers_users_bring_theirs():
    lm = tasks.CausalLM(tiny.backbone("gpt2", decoder__num_layers=1))
    for call, said, ours in (
        (lambda **words: tfxformer.from_pretrained("no-folder", **words), "torch_dtype", "dtype"),
        (lambda **words: generation.generate(lm, [[1]], 2, **words), "top_p", r"sampler=generation.TopP\(0.9\)"),
        (lambda **words: lm.generate(["good"], **words), "do_sample", "temperature=1.0"),
        (lambda **words: generation.stream(lm, [[1]], 2, **words), "stride", "piece_length"),
        (lambda **words: lm.generate(["good"], **words), "max_length", "max_new_tokens"),
        (lambda **words: lm.stream("good", **words), "eos_token_id", "stop"),
        (compression.LoRA, "lora_alpha", "alpha"),
        (compression.LoRA, "target_modules", "targets"),
        (models.StackConfig, "num_attention_heads", "attention"),
        (models.AttentionConfig, "num_attention_heads", "heads"),
        (lambda **words: lm.compile(**words), "warmup_ratio", "warmup"),
        (lambda **words: lm.fit(["good"], **words), "num_train_epochs", "epochs"),
        (lambda **words: lm.save_pretrained("no-folder", **words), "max_shard_size", "max_shard_bytes"),
        (lambda **words: export.export_litert(lm, "no.tflite", **words), "quantize", "quantization"),
    ):
        with pytest.raises(TypeError, match=rf"takes no '{said}' \(did you mean {ours}\?\)"):
            call(**{said: 1})


def test_build_names_the_path_of_a_switch():
    with pytest.raises(TypeError, match=r"hidden_size. \(did you mean encoder__hidden_size"):
        tfxformer.build("bert-base", hidden_size=64)
    with pytest.raises(TypeError, match=r"num_hidden_layers. \(did you mean decoder__num_layers"):
        tfxformer.build("gpt2", num_hidden_layers=2)
    with pytest.raises(TypeError, match=r"num_attention_heads. \(did you mean encoder__attention__heads"):
        tfxformer.build("bert-base", num_attention_heads=2)
    with pytest.raises(TypeError, match=r"num_heads. \(did you mean encoder__attention__heads"):
        tfxformer.build("bert-base", encoder__num_heads=2)  # as version 0.5.0 called it
    with pytest.raises(TypeError, match=r"dropuot. \(did you mean encoder__dropout"):
        tfxformer.build("bert-base", encoder__dropuot=0.5)


# ---- compile ----------------------------------------------------------------------------------------------------


def test_optimizer_arguments_beside_a_name_are_used(classifier):
    classifier.compile("adam", learning_rate=2e-5, weight_decay=0.1, global_clipnorm=0.5)
    optimizer = classifier.optimizer
    assert type(optimizer) is keras.optimizers.Adam  # a name means what it means in Keras
    assert float(optimizer.learning_rate) == pytest.approx(2e-5)
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.1, 0.5)
    classifier.compile("adamw", learning_rate=1e-3, layer_decay=0.5)  # a rule that only ours has
    assert classifier.optimizer.layer_decay == 0.5


def test_warmup_beside_a_name_is_a_schedule_of_the_fit(classifier, plain_kernels, tmp_path, eager):
    classifier.compile("adam", learning_rate=2e-3, warmup=0.5, jit_compile=False)
    classifier.fit(tiny.TEXTS, tiny.LABELS, batch_size=12, epochs=2, verbose=0)
    # 24 texts, 12 a batch, 2 epochs: 4 updates. transformers' linear schedule with 2 of them rising, at update 3: 1/2.
    rate = classifier.optimizer._learning_rate
    assert [float(rate(step)) for step in range(5)] == pytest.approx([0, 1e-3, 2e-3, 1e-3, 0])
    classifier.save(tmp_path / "model.keras")
    opened = keras.models.load_model(tmp_path / "model.keras")
    assert opened.optimizer._learning_rate.get_config() == rate.get_config()
    assert opened._plan == {"optimizer": "adam", "learning_rate": 2e-3, "warmup": 0.5}


def test_optimizer_arguments_beside_an_object_are_refused(classifier):
    for arguments in ({"learning_rate": 2e-5}, {"weight_decay": 0.1}, {"global_clipnorm": 0.5}, {"warmup": None}):
        with pytest.raises(TypeError, match=f"{next(iter(arguments))} beside optimizer=<Adam>.*set them on the object"):
            classifier.compile(keras.optimizers.Adam(1e-3), **arguments)
    with pytest.raises(TypeError, match="takes no 'relative_step'"):
        classifier.compile("adam", relative_step=True)
    with pytest.raises(TypeError, match=r"takes no 'learning_rat' \(did you mean learning_rate\?\)"):
        classifier.compile(learning_rat=1e-3)
    with pytest.raises(ValueError, match="learning_rate=nan"):
        classifier.compile(learning_rate=float("nan"))
    with pytest.raises(TypeError, match="learning_rate beside optimizer=<Adam>"):
        classifier.compile({"class_name": "Adam", "config": {"learning_rate": 1e-3}}, learning_rate=1e-4)
    with pytest.raises(TypeError, match=r"optimizer=Adam is a class: give an object, Adam\(...\)"):
        classifier.compile(keras.optimizers.Adam)


def test_what_compile_cannot_use_is_refused_there(classifier):
    """Each was found where the first step was traced, or never."""
    with pytest.raises(ValueError, match=r"loss_weights=.*wanted finite numbers"):
        classifier.compile("sgd", loss_weights=[float("nan")])
    with pytest.raises(ValueError, match="steps_per_execution=0: wanted a whole number"):
        classifier.compile("sgd", steps_per_execution=0)
    for argument in ({"loss": 5}, {"metrics": [5]}):
        with pytest.raises(TypeError, match="has no 5: wanted a name, an object or a function"):
            classifier.compile("sgd", **argument)


def test_distiller_uses_or_refuses_optimizer_arguments_alike(classifier):
    distiller = compression.Distiller(compression.student_from(classifier, keep=1), classifier)
    distiller.compile("adam", learning_rate=2e-5, global_clipnorm=0.5)
    assert distiller.optimizer.global_clipnorm == 0.5
    assert float(distiller.optimizer.learning_rate) == pytest.approx(2e-5)
    with pytest.raises(TypeError, match="learning_rate beside optimizer=<SGD>"):
        distiller.compile(keras.optimizers.SGD(), learning_rate=2e-5)
    with pytest.raises(TypeError, match=r"Distiller.fit takes no 'epoch' \(did you mean epochs\?\)"):
        distiller.fit(tiny.TEXTS, epoch=3)


@pytest.mark.parametrize(
    "callback", [keras.callbacks.ReduceLROnPlateau("loss"), keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)]
)
def test_callbacks_that_set_the_rate_are_told_the_way_out_of_a_schedule(classifier, callback):
    classifier.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=rf"{type(callback).__name__} sets .*compile\('adamw', learning_rate=5e-5\)"):
        classifier.fit(tiny.TEXTS, tiny.LABELS, batch_size=24, callbacks=[callback], verbose=0)
    with pytest.raises(TypeError, match=r"compile\('adamw', learning_rate=5e-5\)"):
        classifier.optimizer.learning_rate = 1e-3
    classifier.compile("adamw", learning_rate=5e-5, run_eagerly=True)  # the way that the message names
    classifier.fit(tiny.TEXTS, tiny.LABELS, batch_size=24, callbacks=[callback], verbose=0)


def test_optimizers_and_schedules_by_name_refuse_what_they_do_not_take():
    with pytest.raises(ValueError, match="peak"):
        training.WarmupLinear(float("nan"), 10)
    with pytest.raises(TypeError, match=r"takes no 'flor' \(did you mean floor\?\)"):
        training.schedule("cosine", 1e-3, 10, flor=0.1)
    with pytest.raises(TypeError, match=r"takes no 'weigth_decay' \(did you mean weight_decay\?\)"):
        training.optimizer("adamw", 1e-3, weigth_decay=0.1)


# ---- batches ----------------------------------------------------------------------------------------------------

OF_TRANSFORMERS = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}


@pytest.fixture(scope="module")
def batch():
    return tiny.batch()


@pytest.fixture(scope="module")
def of_transformers(batch):
    return {OF_TRANSFORMERS[name]: array for name, array in batch.items()}


def test_batch_by_transformers_names_is_the_same_batch(encoder, classifier, batch, of_transformers, plain_kernels):
    wanted = np.asarray(encoder(batch)["sequence_output"])
    np.testing.assert_array_equal(encoder(of_transformers)["sequence_output"], wanted)
    traced = tf.function(lambda inputs: encoder(inputs)["sequence_output"])
    np.testing.assert_allclose(traced(of_transformers), wanted, atol=1e-5)
    np.testing.assert_array_equal(classifier(of_transformers), classifier(batch))
    classifier.compile(run_eagerly=True)
    labels = np.array([0, 1, 0])
    np.testing.assert_array_equal(classifier.predict(of_transformers, verbose=0), classifier.predict(batch, verbose=0))
    dataset = tf.data.Dataset.from_tensor_slices((of_transformers, labels)).batch(3)
    assert classifier.evaluate(dataset, verbose=0) == classifier.evaluate(batch, labels, verbose=0)
    lm = tasks.CausalLM(tiny.backbone("gpt2", decoder__num_layers=1))
    ours = {name: batch[name] for name in ("token_ids", "padding_mask")}
    theirs = {OF_TRANSFORMERS[name]: array for name, array in ours.items()}
    np.testing.assert_array_equal(lm(theirs), lm(ours))


def test_unknown_or_missing_key_of_a_batch_is_named(encoder, classifier, batch):
    labels, short = np.array([0, 1, 0]), {name: batch[name] for name in ("token_ids", "padding_mask")}
    both = tasks.MultiTask({"one": classifier, "two": tasks.TextClassifier(encoder, ["a", "b"], name="two")})
    for model in (encoder, classifier, both, tasks.MaskedLM(encoder), tf.function(encoder)):
        with pytest.raises(ValueError, match="has labels, which it does not read"):
            model({**batch, "labels": labels})
        with pytest.raises(ValueError, match="lacks segment_ids"):
            model(short)
        with pytest.raises(ValueError, match="a dict of token_ids, padding_mask, segment_ids; got a list"):
            model(list(batch.values()))
    for call in (classifier.fit, classifier.evaluate):
        with pytest.raises(ValueError, match="lacks segment_ids"):
            call(short, labels)
        with pytest.raises(ValueError, match="lacks segment_ids"):
            call(tf.data.Dataset.from_tensor_slices((short, labels)).batch(3))
    with pytest.raises(ValueError, match="has speaker, which"):
        classifier.predict({**batch, "speaker": labels})
    with pytest.raises(ValueError, match="has segment_ids, which it does not read"):
        tiny.backbone("gpt2", decoder__num_layers=1)(batch)
    with pytest.raises(ValueError, match="'token_ids' twice"):
        encoder({**batch, "input_ids": batch["token_ids"]})
    with pytest.raises(ValueError, match=r"Decoder\.step has padding_mask, which it does not read"):
        decoder = tiny.backbone("gpt2", decoder__num_layers=1)
        inputs = {"token_ids": batch["token_ids"], "cache_positions": np.arange(12), "padding_mask": labels}
        decoder.step(inputs, decoder.new_cache(3, 16))
