"""Folders whose weights are pytorch_model.bin: the models that their safetensors give, opened by every task's road."""

import json
import shutil
import warnings

import make_fixtures
import numpy as np
import pickle_files
import pytest
import tiny
from checkpoint_folders import outputs_in_transformers

import tfxformer
from tfxformer import tasks
from tfxformer.checkpoints import CheckpointError, PickleFile
from tfxformer.checkpoints.files import hub, safetensors
from tfxformer.checkpoints.files.folders import open_folder

FAMILIES = {
    "bert-relu-three-types": tasks.MaskedLM,
    "albert-classifier": tasks.TextClassifier,
    "gpt2-lm": tasks.CausalLM,
    "bloom-lm": tasks.CausalLM,
    "llama-lm": tasks.CausalLM,
    "seq2seq-t5-gated": tasks.Seq2SeqLM,
    "seq2seq-bart-scaled": tasks.Seq2SeqLM,
}


def opened(task, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return task.from_pretrained(folder)


def shards(folder, tensors, write, count=2):
    """pytorch_model-0000i-of-0000n.bin and their index."""
    weight_map = {}
    for index in range(count):
        file = f"pytorch_model-{index + 1:05d}-of-{count:05d}.bin"
        part = dict(list(tensors.items())[index::count])
        write(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def as_pickles(name, tmp_path, sharded=False):
    """A fixture's folder, its safetensors rewritten."""
    folder = shutil.copytree(make_fixtures.FOLDER / name, tmp_path / "checkpoint")
    tensors = dict(safetensors.open_folder(folder))
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    if sharded:
        shards(folder, tensors, pickle_files.write)
    else:
        pickle_files.write(folder / "pytorch_model.bin", tensors)
    return folder


def check_same_weights(model, wanted):
    ours, theirs = tiny.weights(model), tiny.weights(wanted)
    assert ours.keys() == theirs.keys()
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("name", ["bert-relu-three-types", "gpt2-lm"])
def test_a_folder_of_pickles_is_the_model_of_its_safetensors(name, sharded, tmp_path):
    folder = as_pickles(name, tmp_path, sharded)
    check_same_weights(opened(FAMILIES[name], folder), opened(FAMILIES[name], make_fixtures.FOLDER / name))


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "sharded"),
    [
        *((name, False) for name in FAMILIES),
        ("gpt2-lm", True),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in FAMILIES if name != "gpt2-lm"),
    ],
)
def test_what_torch_saves_of_transformers_models_is_read(name, sharded, tmp_path):
    """state_dict() has every tied tensor under each of its names, and buffers that safetensors files lack."""
    import torch
    import transformers

    source = make_fixtures.FOLDER / name
    architecture = json.loads((source / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(source)
    folder = tmp_path / "checkpoint"
    model.config.save_pretrained(folder)
    if sharded:
        shards(folder, model.state_dict(), lambda path, part: torch.save(part, path))
    else:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert set(open_folder(folder)) == set(model.state_dict())
    check_same_weights(opened(FAMILIES[name], folder), opened(FAMILIES[name], source))


@pytest.mark.reference
def test_the_prefix_of_data_parallel_is_passed_over(tmp_path):
    import torch

    folder = as_pickles("bert-relu-three-types", tmp_path)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, folder / "pytorch_model.bin")
    check_same_weights(
        opened(tasks.MaskedLM, folder), opened(tasks.MaskedLM, make_fixtures.FOLDER / "bert-relu-three-types")
    )


def test_safetensors_come_first(tmp_path):
    folder = shutil.copytree(make_fixtures.FOLDER / "bert-relu-three-types", tmp_path / "checkpoint")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    opened(tasks.MaskedLM, folder)


def test_a_model_is_saved_beside_the_pickles_it_came_from(tmp_path):
    folder = as_pickles("bert-relu-three-types", tmp_path)
    model = opened(tasks.MaskedLM, folder)
    model.save_pretrained(folder)
    assert isinstance(open_folder(folder), safetensors.SafetensorsFile)
    check_same_weights(opened(tasks.MaskedLM, folder), model)


@pytest.mark.parametrize("shard", ["../a.bin", "/etc/passwd", "..", "sub/a.bin"])
def test_a_shard_outside_the_folder_is_refused(shard, tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(CheckpointError, match="must lie beside its index"):
        open_folder(tmp_path)


def test_pickles_under_other_names_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match=r"model\.pt.*can run any code.*pytorch_model\.bin.*save_pretrained"):
        open_folder(tmp_path)


def test_a_dense_module_of_sentence_transformers(tmp_path):
    kernel = np.arange(12, dtype="float32").reshape(3, 4)
    pickle_files.write(tmp_path / "pytorch_model.bin", {"linear.weight": kernel, "linear.bias": kernel[:, 0].copy()})
    from tfxformer.checkpoints.sentence_transformers import MODULES_FILE, read_dense

    files = {MODULES_FILE: [{"type": "sentence_transformers.models.Dense", "path": ""}]}
    (dense,) = read_dense(tmp_path, files)
    np.testing.assert_array_equal(dense["kernel"], kernel.T)
    np.testing.assert_array_equal(dense["bias"], kernel[:, 0])


@pytest.mark.parametrize("has", ["safetensors", "pickles", "pickled dense module"])
def test_the_hub_is_asked_for_pickles_only_where_there_are_no_safetensors(has, tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    there = ["config.json", "pytorch_model.bin", "2_Dense/config.json", "2_Dense/pytorch_model.bin"]
    there += {"safetensors": ["model.safetensors", "2_Dense/model.safetensors"], "pickles": []}.get(
        has, ["model.safetensors"]
    )
    there += ["optimizer.bin", "onnx/pytorch_model.bin", "training_args.bin", "pytorch_model.bin.index.json"]
    there += ["pytorch_model-00001-of-00002.bin", "pytorch_model.fp16.bin"]
    asked = []

    def snapshot_download(name, revision, allow_patterns, ignore_patterns):
        chosen = list(filter_repo_objects(there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        asked.append(chosen)
        for file in chosen:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub.resolve("owner/name") == tmp_path
    pickled = {file for file in asked[-1] if file.endswith((".bin", ".bin.index.json"))}
    if has == "safetensors":
        assert len(asked) == 1 and not pickled
    else:
        assert len(asked) == 2 and not any(file.endswith(".bin") for file in asked[0])
        assert pickled == {
            *("pytorch_model.bin", "2_Dense/pytorch_model.bin", "pytorch_model.bin.index.json"),
            "pytorch_model-00001-of-00002.bin",
        }


@pytest.mark.reference
def test_outputs_are_those_of_transformers(tmp_path):
    """transformers reads the handmade file itself."""
    folder = as_pickles("bert-relu-three-types", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tfxformer.from_pretrained(folder)
    inputs = tiny.inputs_for(model)
    wanted = outputs_in_transformers("BertForMaskedLM", folder, inputs)
    logits = np.asarray(opened(tasks.MaskedLM, folder)(inputs))
    valid = inputs["padding_mask"].astype(bool)
    np.testing.assert_allclose(logits[valid], wanted.logits.numpy()[valid], atol=1e-5)


def test_another_model_than_the_config_is_refused(tmp_path):
    folder = as_pickles("bert-relu-three-types", tmp_path)
    tensors = dict(PickleFile(folder / "pytorch_model.bin"))
    tensors.pop("bert.encoder.layer.1.attention.self.query.weight")
    (folder / "pytorch_model.bin").unlink()
    pickle_files.write(folder / "pytorch_model.bin", tensors)
    with pytest.raises(CheckpointError, match="lacks 1 tensors"):
        opened(tasks.MaskedLM, folder)
