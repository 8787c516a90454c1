"""Checkpoints that do not fit: each with a clear error, and nothing left half-made."""

import json
import shutil
import warnings

import keras
import make_fixtures
import numpy as np
import pytest
import tiny
from checkpoint_folders import change, configure

import tfxformer
from tfxformer import tasks
from tfxformer.backend import deferred
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.files import safetensors
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.checkpoints.variables import initialize


@pytest.fixture
def folder(tmp_path):
    """A BERT with a masked-language head, to be damaged."""
    return shutil.copytree(make_fixtures.FOLDER / "bert-relu-three-types", tmp_path / "checkpoint")


QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def read(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tfxformer.from_pretrained(folder)


def test_missing_tensor(folder):
    change(folder, lambda tensors: tensors.pop(QUERY))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*encoder\.layer\.1\.attention\.self\.query\.weight"):
        read(folder)


def test_extra_tensor(folder):
    change(folder, lambda tensors: tensors.update({"bert.encoder.layer.2.output.dense.bias": np.ones(3, "float32")}))
    with pytest.raises(CheckpointError, match=r"no place for: encoder\.layer\.2\.output\.dense\.bias"):
        read(folder)


def test_tensor_of_another_shape(folder):
    change(folder, lambda tensors: tensors.update({QUERY: np.ones((24, 23), "float32")}))
    with pytest.raises(CheckpointError, match=r"shape \[24, 23\], the model wants \[24, 24\]"):
        read(folder)


def test_kernel_is_not_read_untransposed(folder):
    """A square kernel fits both ways; an oblong one proves which way is checked."""
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    change(folder, lambda tensors: tensors.update({name: np.ascontiguousarray(tensors[name].T)}))
    with pytest.raises(CheckpointError, match=r"shape \[24, 40\], the model wants \[40, 24\]"):
        read(folder)


def test_quantized_tensor(folder):
    change(folder, lambda tensors: tensors.update({QUERY: np.ones((24, 24), "int8")}))
    with pytest.raises(CheckpointError, match="int8 values, not floats"):
        read(folder)


def test_tensor_with_and_without_prefix(folder):
    change(folder, lambda tensors: tensors.update({QUERY.removeprefix("bert."): tensors[QUERY] * 2}))
    with pytest.raises(CheckpointError, match="two tensors for one place"):
        read(folder)


def test_junk_buffers_are_passed_over(folder):
    before = tiny.weights(read(folder))
    change(folder, lambda tensors: tensors.update({"bert.embeddings.position_ids": np.arange(40)[None]}))
    after = tiny.weights(read(folder))
    assert before.keys() == after.keys()
    assert all((after[path] == before[path]).all() for path in before)


def test_tied_copy_must_be_equal(folder):
    table = "bert.embeddings.word_embeddings.weight"
    change(folder, lambda tensors: tensors.update({"cls.predictions.decoder.weight": tensors[table]}))
    read(folder)
    change(folder, lambda tensors: tensors.update({"cls.predictions.decoder.weight": tensors[table] + 1}))
    with pytest.raises(CheckpointError, match="differs from"):
        read(folder)


def test_bias_under_its_other_name(folder, tiny_tokenizer):
    """Some files have the bias of the tied table as the decoder's only."""

    def rename(tensors):
        tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")

    wanted = np.array(safetensors.open_folder(folder)["cls.predictions.bias"])
    change(folder, rename)
    model = tasks.MaskedLM.from_pretrained(folder, tokenizer=tiny_tokenizer)
    np.testing.assert_array_equal(tiny.weights(model)["masked_lm_bias/bias"], wanted)


def test_head_in_part(folder, tiny_tokenizer):
    change(folder, lambda tensors: tensors.pop("cls.predictions.transform.dense.bias"))
    with pytest.raises(CheckpointError, match=r"only a part of the head.*cls\.predictions\.transform\.dense\.bias"):
        tasks.MaskedLM.from_pretrained(folder, tokenizer=tiny_tokenizer)


def test_new_and_unused_heads_are_said_once(folder, tiny_tokenizer):
    with pytest.warns(UserWarning) as caught:
        tasks.TextClassifier.from_pretrained(folder, labels=["a", "b"], tokenizer=tiny_tokenizer)
    (message,) = [str(warning.message) for warning in caught if "Heads" in str(warning.message)]
    assert "new, with random weights: classifier, pooler" in message
    assert "not used: cls.predictions" in message


def test_labels_of_another_number(tiny_tokenizer):
    folder = make_fixtures.FOLDER / "bert-shards"  # five labels
    with pytest.raises(CheckpointError, match=r"\[5, 24\], the model wants \[2, 24\].*labels"):
        tasks.TextClassifier.from_pretrained(folder, labels=["a", "b"], tokenizer=tiny_tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "longformer"}, r"model_type='longformer'; tfxformer reads bert, roberta"),
        ({"model_type": "absent"}, "model_type=None"),
        ({"model_type": ["bert"]}, "model_type="),
        ({"hidden_act": "gleu"}, "Unknown activation 'gleu'"),
        ({"hidden_act": ["gelu"]}, "does not describe"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"num_hidden_layers": 0}, "num_layers must be a positive int"),
        ({"num_hidden_layers": 2.5}, "num_layers must be a positive int"),
        ({"num_attention_heads": 5}, "must be a multiple of heads"),
        ({"vocab_size": "many"}, "does not describe"),
        ({"hidden_dropout_prob": 1.5}, r"dropout must be in \[0, 1\)"),
        ({"pad_token_id": 96}, "padding_id"),
        ({"num_hidden_layers": 3}, "lacks 16 tensors"),
        ({"num_hidden_layers": 1}, "has 16 tensors that a 'bert' model has no place for"),
        ({"type_vocab_size": 2}, r"\[3, 24\], the model wants \[2, 24\]"),
    ],
)
def test_config_that_does_not_fit(changes, message, folder):
    configure(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_the_layers(groups, tmp_path):
    folder = shutil.copytree(make_fixtures.FOLDER / "albert-groups", tmp_path / "checkpoint")
    configure(folder, num_hidden_groups=groups)
    with pytest.raises(CheckpointError, match="multiple of layer_groups"):
        read(folder)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"model_type": "bert"'])
def test_config_that_is_none(content, folder):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read(folder)


def test_no_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read(folder)


def test_missing_keys_take_the_reference_defaults(folder):
    """transformers leaves out what its class implies."""
    wanted = read(folder).config
    configure(folder, layer_norm_eps="absent", hidden_dropout_prob="absent", classifier_dropout="absent")
    assert read(folder).config == wanted


def test_failed_load_leaves_keras_usable(folder):
    """Variables without values must not wait in Keras' own list for the next scope."""
    change(folder, lambda tensors: tensors.pop(QUERY))
    with pytest.raises(CheckpointError):
        read(folder)
    dense = keras.layers.Dense(2)
    dense.build((None, 3))
    assert np.asarray(dense.kernel).shape == (3, 2)
    with keras.StatelessScope():
        keras.layers.Dense(2).build((None, 3))


def test_every_variable_has_its_own_value(folder):
    """No view of the mapped file: training one model must not touch another, or the file."""
    content = (folder / "model.safetensors").read_bytes()
    first, second = read(folder), read(folder)
    for variable in first.trainable_variables:
        variable.assign(variable.value + 1.0)
    assert (folder / "model.safetensors").read_bytes() == content
    assert all(np.isfinite(np.asarray(v.value)).all() for v in second.variables)
    ours, theirs = tiny.weights(first), tiny.weights(second)
    assert all(np.abs(ours[path] - theirs[path] - 1.0).max() < 1e-5 for path in ours)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_dtype_policies(dtype):
    folder = make_fixtures.FOLDER / "albert-classifier"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tfxformer.from_pretrained(folder, dtype=dtype)
    wanted = "bfloat16" if dtype == "bfloat16" else "float32"
    assert {v.dtype for v in model.trainable_variables} == {wanted}
    assert model(tiny.inputs_for(model, length=8))["sequence_output"].dtype == dtype.removeprefix("mixed_")


def test_folders_and_hub_ids(tmp_path, monkeypatch):
    import huggingface_hub

    assert resolve(tmp_path) == tmp_path
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        resolve(tmp_path / "file")
    for name in ("no/such/folder", "./nothing", "a b", ""):
        with pytest.raises(CheckpointError, match="There is no folder"):
            resolve(name if name else tmp_path / "nothing here")
    asked = []

    def snapshot_download(name, revision, allow_patterns, ignore_patterns):
        asked.append((name, allow_patterns))
        if name == "owner/absent":
            raise OSError("offline")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("owner/name") == tmp_path
    assert not any(pattern.endswith(".bin") for pattern in asked[0][1])
    with pytest.raises(CheckpointError, match=r"hub did not give.*offline.*cache"):
        resolve("owner/absent")


def test_saving_over_a_folder_and_into_a_file(folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tasks.TextClassifier.from_pretrained(
            make_fixtures.FOLDER / "distilbert-classifier", tokenizer=tiny.tokenizer(tmp_path)
        )
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(OSError):
        model.save_pretrained(tmp_path / "occupied")
    assert (tmp_path / "occupied").read_text() == "a file"
    with pytest.raises(CheckpointError, match="Unknown dtype 'int8'"):
        model.save_pretrained(tmp_path / "saved", dtype="int8")
    assert not (tmp_path / "saved").exists()
    model.save_pretrained(folder)  # over a checkpoint of another family
    assert json.loads((folder / "config.json").read_text())["model_type"] == "distilbert"
    tasks.TextClassifier.from_pretrained(folder)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("offset", [0, 4, 8, 16, 32, 60])
def test_a_variable_keeps_its_value_when_the_array_is_written_to(offset, transpose):
    """Of a mapped file an array lies anywhere, and the file may be written anew."""
    memory = np.zeros(4096, "uint8")
    start = -memory.ctypes.data % 64 + offset
    array = memory[start : start + 24 * 40].view("float32").reshape(12, 20)
    array[...] = expected = np.arange(240, dtype="float32").reshape(12, 20)
    with deferred():
        variable = keras.Variable("zeros", shape=(20, 12) if transpose else (12, 20))
    initialize(variable, array, transpose=transpose)
    memory[...] = 255
    np.testing.assert_array_equal(variable, expected.T if transpose else expected)


def test_kernels_of_convolutions_are_turned_round():
    array = np.arange(24, dtype="float32").reshape(2, 3, 4)
    variable = keras.Variable("zeros", shape=(4, 3, 2))
    initialize(variable, array, transpose=True)
    np.testing.assert_array_equal(variable, array.T)
