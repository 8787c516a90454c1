"""GGUF files: against the tensors they were written from, and what spoils a file."""

import json
import struct

import gguf_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.checkpoints.gguf_models import open_gguf
from tfxformer.checkpoints.pretrained import open_checkpoint

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return gguf_files.write_llama(tmp_path_factory.mktemp("gguf") / "good.gguf")


@pytest.mark.parametrize("kinds", [{}, gguf_files.MIXED, {"weight": "F16"}], ids=["F32", "mixed", "F16"])
def test_tensors_have_the_references_names_layout_and_values(tmp_path, kinds):
    tensors = gguf_files.llama_tensors(tied=False)
    config, read = open_gguf(gguf_files.write_llama(tmp_path / "m.gguf", tensors=tensors, kinds=kinds))
    assert len(read) == len(tensors)
    assert not config["tie_word_embeddings"]
    name = "blk.1.attn_k.weight"
    np.testing.assert_array_equal(
        gguf_files.pairs(read["model.layers.1.self_attn.k_proj.weight"], heads=2),
        gguf_files.stored(name, tensors[name], kinds),
    )
    for ours, theirs in {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
        "blk.1.ffn_norm.weight": "model.layers.1.post_attention_layernorm.weight",
    }.items():
        np.testing.assert_array_equal(read[theirs], gguf_files.stored(ours, tensors[ours], kinds))
    for theirs in read:
        assert read.shape(theirs) == read[theirs].shape
        assert read[theirs].dtype == read.dtype(theirs) == np.float32


def test_long_tensors_are_read_in_chunks_without_a_seam(tmp_path):
    table = np.random.default_rng(0).normal(size=(9000, 64)).astype("float32")  # more than two chunks
    tensors = gguf_files.llama_tensors() | {"token_embd.weight": table}
    path = gguf_files.write_llama(tmp_path / "m.gguf", tensors=tensors, kinds={"token_embd": "Q4_1"})
    expected = gguf_files.stored("token_embd.weight", table, {"token_embd": "Q4_1"})
    np.testing.assert_array_equal(GGUFFile(path)["token_embd.weight"], expected)


def test_config_of_the_metadata(good):
    config, _ = open_gguf(good)
    assert config["rms_norm_eps"] == 1e-5  # not float32's 9.999999747378752e-06
    assert config["rope_parameters"] == {"rope_theta": 50000.0, "rope_type": "default"}
    assert config["tie_word_embeddings"]
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, None)
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"llama.rope.freq_base": None}, {"rope_theta": 10000.0, "rope_type": "default"}),
        ({"llama.rope.scale_linear": 4.0}, {"rope_theta": 50000.0, "rope_type": "linear", "factor": 4.0}),
        (
            {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
            {"rope_theta": 50000.0, "rope_type": "default"},
        ),
    ],
)
def test_rotary_scaling_of_the_metadata(tmp_path, changes, expected):
    config, _ = open_gguf(gguf_files.write_llama(tmp_path / "m.gguf", changes))
    assert config["rope_parameters"] == expected


def test_a_list_of_equal_values_is_one_and_the_end_of_a_turn_ends_too(tmp_path):
    changes = {
        "llama.attention.head_count": [4, 4],
        "llama.attention.head_count_kv": None,
        "tokenizer.ggml.eot_token_id": 5,
    }
    tensors = gguf_files.llama_tensors()
    config, _ = open_gguf(gguf_files.write_llama(tmp_path / "m.gguf", changes, tensors))
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (4, 4)
    assert config["eos_token_id"] == [2, 5]


# ---- what is refused ----------------------------------------------------------------------------------------------


def spoiled(good, tmp_path, change):
    content = bytearray(good.read_bytes())
    path = tmp_path / "spoiled.gguf"
    path.write_bytes(bytes(change(content)))
    return path


def put(offset, form, *values):
    def change(content):
        struct.pack_into(form, content, offset, *values)
        return content

    return change


def put_after(marker, shift, form, *values):
    """Overwrites bytes `shift` after the end of a name."""

    def change(content):
        return put(content.index(marker) + len(marker) + shift, form, *values)(content)

    return change


BROKEN = {
    "empty": (lambda content: b"", "too short"),
    "magic": (lambda content: b"GGML" + content[4:], "begins with b'GGML'"),
    "version": (put(4, "<I", 1), "has GGUF version 1"),
    "big-endian": (put(4, ">I", 3), "is big-endian"),
    "tensor count": (put(8, "<Q", 2**60), "claims 1152921504606846976 tensors"),
    "field count": (put(16, "<Q", 2**60), "claims 1152921504606846976 metadata fields"),
    "one field more": (lambda content: put(16, "<Q", content[16] + 1)(content), "not a valid GGUF file"),
    "length of a key": (put(24, "<Q", 2**62), "truncated"),
    "key not UTF-8": (put(32, "<B", 0xFF), "not UTF-8"),
    "type of a value": (put_after(b"general.type", 0, "<I", 77), "unknown type 77"),
    "list without end": (put_after(b"llama.block_count", 0, "<IIQ", 9, 0, 2**61), "the length of 'llama.block_count'"),
    "list of lists": (put_after(b"llama.block_count", 0, "<IIQ", 9, 9, 1), "list of the unknown type 9"),
    "rank": (put_after(b"token_embd.weight", 0, "<I", 9), "9 dimensions"),
    "dimension": (put_after(b"token_embd.weight", 4, "<Q", 0), "not made of"),
    "huge shape": (put_after(b"token_embd.weight", 4, "<QQ", 2**62, 2**62), "truncated"),
    "tensor type": (put_after(b"token_embd.weight", 20, "<I", 4), "unknown type 4"),
    "integers": (put_after(b"token_embd.weight", 20, "<I", 26), "stored as I32"),
    "offset": (put_after(b"output_norm.weight", 16, "<Q", 2**50), "where 10240 was due"),
    "overlap": (put_after(b"output_norm.weight", 16, "<Q", 0), "begins at 0 of the data, where 10240 was due"),
    "two of a name": (lambda content: content.replace(b"blk.1.attn_q.weight", b"blk.1.attn_v.weight"), "comes twice"),
    "truncated data": (lambda content: content[:-100], "truncated"),
    "truncated header": (lambda content: content[:300], "not a valid GGUF file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_told_apart(case, good, tmp_path):
    change, message = BROKEN[case]
    with pytest.raises(CheckpointError, match=message):
        open_gguf(spoiled(good, tmp_path, change))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_to_a_header_escapes_as_another_error(good, tmp_path, data):
    content = bytearray(good.read_bytes())
    header = content.index(b"blk.1.ffn_down.weight") + 60
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]))
    try:
        config, read = open_gguf(path)
    except CheckpointError:
        return
    assert config["model_type"] == "llama"
    for name in read:
        assert len(read.shape(name)) <= 4


def test_an_embedding_model_sees_later_tokens(tmp_path):
    path = gguf_files.write_llama(tmp_path / "m.gguf", {"llama.attention.causal": False})
    assert open_gguf(path)[0]["is_causal"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.block_count": None}, "lacks the metadata key llama.block_count"),
        ({"llama.block_count": "two"}, "llama.block_count='two', where a int was due"),
        ({"llama.attention.head_count": 0}, "at least one head"),
        ({"llama.attention.head_count": 5}, "cannot be that of 5 heads"),
        ({"llama.attention.head_count_kv": [2, 4]}, "has another attention.head_count_kv in each layer"),
        ({"llama.expert_count": 8}, "expert_count=8"),
        ({"llama.attention.sliding_window": 16}, "does not implement for GGUF 'llama' models.*sliding_window=16"),
        ({"llama.rope.dimension_count": 8}, None),
        ({"llama.rope.dimension_count": 8, "llama.attention.key_length": 16}, "of different widths"),
        ({"llama.rope.scaling.type": "longrope"}, "by 'longrope'"),
        ({"llama.rope.scaling.type": "yarn"}, "lacks the metadata key llama.rope.scaling.original_context_length"),
        ({"general.type": "adapter"}, "no model but a GGUF 'adapter'"),
        ({"general.alignment": 24}, "not a power of two"),
        ({"split.count": 3}, "of the 3 of a split GGUF"),
        ({"split.count": "3"}, "split.count='3'"),
        ({"tokenizer.ggml.eos_token_id": "two"}, "id of a special token"),
    ],
)
def test_settings_that_are_missing_or_not_implemented_are_refused(tmp_path, changes, message):
    path = gguf_files.write_llama(tmp_path / "m.gguf", changes)
    if message is None:  # a width that only the tensors' shapes contradict, which loading checks
        assert open_gguf(path)[0]["head_dim"] == 8
        return
    with pytest.raises(CheckpointError, match=message):
        _, read = open_gguf(path)
        [read[name] for name in read]


def test_other_architectures_tensors_and_vocabularies_are_refused(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", "mamba", {}, gguf_files.llama_tensors())
    with pytest.raises(CheckpointError, match=r"architecture 'mamba'; of GGUF files .* llama, qwen2, qwen3, gemma"):
        open_gguf(path)
    extra = gguf_files.llama_tensors() | {"blk.0.attn_q_norm.weight": np.ones(16, "float32")}
    with pytest.raises(CheckpointError, match=r"1 tensors that .* blk\.0\.attn_q_norm\.weight"):
        open_gguf(gguf_files.write_llama(tmp_path / "n.gguf", tensors=extra))
    norm = {"output_norm.weight": np.ones(64, "float32")}
    with pytest.raises(CheckpointError, match="a vocabulary without a model"):
        open_gguf(gguf_files.write_llama(tmp_path / "o.gguf", tensors=norm))


def test_paths(good, tmp_path):
    assert resolve(str(good)) == good
    assert open_checkpoint(good)[0]["model_type"] == "llama"
    with pytest.raises(CheckpointError, match="no GGUF file"):
        resolve(tmp_path / "absent.gguf")
    with pytest.raises(CheckpointError, match="no GGUF file"):
        open_gguf(tmp_path / "absent.gguf")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="or a GGUF file"):
        resolve(tmp_path / "weights.bin")
