"""Checkpoints that ask for more than their bytes hold, or whose files are damaged or not what they seem."""

import json
import shutil
import zipfile

import make_fixtures
import pytest
import tiny
from checkpoint_folders import change, configure

import tfxformer
from tfxformer import tasks
from tfxformer.checkpoints import CheckpointError, pretrained
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.layers.attention.rotary import Rotary
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def folder(tmp_path):
    """A BERT of 13,000 numbers, to be damaged."""
    return shutil.copytree(make_fixtures.FOLDER / "bert-relu-three-types", tmp_path / "checkpoint")


@pytest.fixture
def nothing_is_made(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a model was made before its config was checked")

    monkeypatch.setattr(pretrained, "make_backbone", refuse)
    monkeypatch.setattr("tfxformer.tasks.base.task.make_backbone", refuse)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 100_000),
        ("num_hidden_layers", 10**12),
        ("num_hidden_layers", 900),
        ("vocab_size", 10**9),
        ("max_position_embeddings", 10**9),
        ("intermediate_size", 10**9),
        ("type_vocab_size", 10**9),
        ("hidden_size", 3 * 10**9),
    ],
)
def test_config_json_num_hidden_layers_1e5_on_a_100_kb_file(key, value, folder, nothing_is_made):
    configure(folder, **{key: value})
    with pytest.raises(CheckpointError, match=r"config\.json (says|asks).*config\.json that of another"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("labels", [10**9, -1, "2", 2.5, True])
def test_num_labels_1e9(labels, folder, nothing_is_made):
    configure(folder, num_labels=labels)
    with pytest.raises(CheckpointError, match=r"config\.json says num_labels="):
        tasks.TextClassifier.from_pretrained(folder)


@pytest.mark.parametrize("names", [{"0": "a", "1000000000": "b"}, {"x": "a"}, {"0": 1}, {"0": None}, [1], True, 3.5])
def test_id2label_must_name_each_column(names, folder):
    configure(folder, id2label=names)
    with pytest.raises(ValueError, match="id2label must"):
        tasks.TextClassifier.from_pretrained(folder)


def test_shared_layers_are_bounded_too(tmp_path):
    folder = shutil.copytree(make_fixtures.FOLDER / "albert-groups", tmp_path / "checkpoint")
    configure(folder, num_hidden_layers=100_000)
    with pytest.raises(CheckpointError, match="num_hidden_layers=100000"):
        tfxformer.from_pretrained(folder)
    configure(folder, num_hidden_layers=4, inner_group_num=10**9)
    with pytest.raises(CheckpointError, match="inner_group_num"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", -1e-5),
        ("layer_norm_eps", "1e-5"),
        ("layer_norm_eps", True),
        ("initializer_range", float("inf")),
        ("initializer_range", -0.02),
        ("num_hidden_layers", True),
        ("num_attention_heads", 0),
    ],
)
def test_layer_norm_eps_nan_or_negative(key, value, folder):
    configure(folder, **{key: value})
    with pytest.raises(CheckpointError, match=rf"(?s){folder.name}: config\.json.*{key}"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("wrong", [{"base": 0.0}, {"base": float("nan")}, {"kind": "linear", "factor": float("nan")}])
def test_rotary_numbers_are_finite(wrong):
    with pytest.raises(ValueError, match="rotary"):
        Rotary(**wrong)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    [NESTED.encode(), b'{"a": ' + NESTED.encode() + b"}", bytes(range(256)), b"[1]", b"{", b'{"a": 1, "a": 2}'],
    ids=["nested", "nested-in-a-key", "binary", "array", "cut", "key-twice"],
)
def test_arrays_nested_100_000_deep_and_a_binary_tokenizer_json(name, content, folder, tmp_path):
    tiny.tokenizer(tmp_path).save_pretrained(folder)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{folder.name}/{name}") as caught:
        tasks.MaskedLM.from_pretrained(folder)
    assert type(caught.value) in (ValueError, CheckpointError)  # no UnicodeDecodeError, no RecursionError


@pytest.mark.parametrize("content", [NESTED.encode(), bytes(range(256)), b"[1]", b"{}", b'{"weight_map": 3}'])
def test_index_of_shards_that_is_none(content, folder):
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json is not an index of shards"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "absent.safetensors"])
def test_index_naming_a_shard_outside_the_folder_or_missing(shard, folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="names the shard"):
        tfxformer.from_pretrained(folder)


def test_duplicate_json_keys_are_refused(folder):
    """transformers keeps the last value in silence: of two model types one is certainly wrong."""
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text('{"hidden_size": 48,' + text.lstrip()[1:])
    with pytest.raises(CheckpointError, match="the key 'hidden_size' comes twice"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_module_and_orig_mod_are_stripped(prefix, folder):
    wanted = tiny.weights(tfxformer.from_pretrained(folder))
    change(folder, lambda tensors: tensors.update({prefix + name: tensors.pop(name) for name in list(tensors)}))
    found = tiny.weights(tfxformer.from_pretrained(folder))
    assert all((found[path] == wanted[path]).all() for path in wanted)


def test_prefixes_within_the_familys_own(folder):
    wanted = tiny.weights(tfxformer.from_pretrained(folder))
    names = {"bert.encoder.layer.0.": "bert._orig_mod.encoder.layer.0._orig_mod.", "bert.emb": "bert.module.emb"}

    def wrap(tensors):
        for name in list(tensors):
            wrapped = next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name)
            tensors[wrapped] = tensors.pop(name)

    change(folder, wrap)
    found = tiny.weights(tfxformer.from_pretrained(folder))
    assert all((found[path] == wanted[path]).all() for path in wanted)


def test_f8_checkpoints_name_the_real_reason(folder):
    """A header that says F8_E4M3, as torch's float8_e4m3fn is saved."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    begin, end = header[name]["data_offsets"]
    header[name] = {"dtype": "F8_E4M3", "shape": [end - begin], "data_offsets": [begin, end]}
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    with pytest.raises(CheckpointError, match=r"quantized checkpoint.*F8_E4M3.*not damaged.*unquantized checkpoint"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"])
def test_bitsandbytes_gptq_and_awq_checkpoints_name_the_real_reason(method, folder):
    configure(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(CheckpointError, match=rf"quantized \({method}\).*not damaged.*dequantize"):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("with_config", [True, False])
def test_adapter_only_folders_name_adapters_load(with_config, folder):
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    if not with_config:
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter.*owner/base.*compression\.Adapters\(model\)\.load\("):
        tfxformer.from_pretrained(folder)


def test_tokenizer_one_token_larger_than_the_table(folder, tmp_path):
    """The token without a row is named; resize_token_embeddings is transformers' own way out."""
    tokenizer = tiny.tokenizer(tmp_path)
    parts = json.loads(tokenizer.to_json())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    parts["tokenizer"]["model"]["vocab"]["<one-more>"] = rows  # beyond a gap: no more tokens than rows
    larger = Tokenizer.from_json(json.dumps(parts))
    with pytest.raises(ValueError, match=r"<one-more>.*resize_token_embeddings"):
        tasks.MaskedLM.from_pretrained(folder, tokenizer=larger)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("model.gguf", "the path of the .gguf file itself"),
        ("consolidated.safetensors", "download model"),
        ("tf_model.h5", "save_pretrained"),
        ("model.onnx", "exported from"),
        ("model.fp16.safetensors", "a variant"),
        ("pytorch_model.bin", r"pytorch_model\.bin is not read"),
        ("model.pt", "pickles"),
    ],
)
def test_folder_with_other_formats_only(name, way_out, folder):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=way_out):
        tfxformer.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"1234567", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"])
def test_empty_safetensors_or_a_pointer_of_git_lfs(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not"):
        tfxformer.from_pretrained(folder)


def test_a_file_given_in_place_of_the_folder(folder, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=f"give its folder, {folder}"):
        resolve(folder / "model.safetensors")
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(folder / "config.json", "config.json")
    with pytest.raises(CheckpointError, match="unpack the archive"):
        resolve(archive)
    assert resolve(f"{folder}/") == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/checkpoint") == folder
    for nothing in (None, "", 5):
        with pytest.raises(CheckpointError, match="Give the folder"):
            resolve(nothing)
    with pytest.raises(CheckpointError, match="on this machine"):
        resolve(folder, revision="v1.0")
