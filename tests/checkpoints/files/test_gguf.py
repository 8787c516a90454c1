"""GGUF files: against the tensors they were written from, transformers' own reader, and what spoils a file."""

import json
import struct

import gguf_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfxformer
from tfxformer import samples
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.checkpoints.gguf_models import open_gguf
from tfxformer.checkpoints.pretrained import open_checkpoint

gguf = pytest.importorskip("gguf")

MIXED = {
    "token_embd": "Q8_0",
    "ffn": "Q4_1",
    "attn_v": "F16",
    "attn_output": "BF16",
    "attn_k": "Q4_0",
    "attn_q": "Q5_1",
}
# config.json's keys that GGUF's metadata say.
SAID = {
    "llama": "vocab_size hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads "
    "head_dim rms_norm_eps max_position_embeddings rope_parameters tie_word_embeddings attention_bias mlp_bias "
    "hidden_act bos_token_id eos_token_id",
    "qwen2": "vocab_size hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads "
    "rms_norm_eps max_position_embeddings rope_parameters tie_word_embeddings hidden_act",
    "qwen3": "vocab_size hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads "
    "head_dim rms_norm_eps max_position_embeddings rope_parameters tie_word_embeddings hidden_act attention_bias",
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3"),
        "vocab_size hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads head_dim "
        "rms_norm_eps max_position_embeddings rope_parameters tie_word_embeddings",
    ),
    "gpt2": "vocab_size n_embd n_layer n_head n_positions n_inner layer_norm_epsilon activation_function",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32}
PLAIN = {"rope_type": "default", "rope_theta": 1e6}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}


def pairs(rows, heads):
    """Rows of a projection as llama.cpp's converter stores them, one head and one rotated pair after the other."""
    width = len(rows) // heads
    order = [
        head * width + half * width // 2 + i for head in range(heads) for i in range(width // 2) for half in (0, 1)
    ]
    return rows[order]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return gguf_files.write_llama(tmp_path_factory.mktemp("gguf") / "good.gguf")


@pytest.mark.parametrize("kinds", [{}, MIXED, {"weight": "F16"}], ids=["F32", "mixed", "F16"])
def test_tensors_have_the_references_names_layout_and_values(tmp_path, kinds):
    tensors = gguf_files.llama_tensors(tied=False)
    config, read = open_gguf(gguf_files.write_llama(tmp_path / "m.gguf", tensors=tensors, kinds=kinds))
    assert len(read) == len(tensors)
    assert not config["tie_word_embeddings"]
    name = "blk.1.attn_k.weight"
    np.testing.assert_array_equal(
        pairs(read["model.layers.1.self_attn.k_proj.weight"], heads=2), gguf_files.stored(name, tensors[name], kinds)
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


# ---- against transformers -----------------------------------------------------------------------------------------


def converted(model, architecture, fields=None):
    """A transformers model's tensors under GGUF's names, and metadata, by the converter's rules."""
    config, tensors = model.config, {}
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = pairs(array, heads)
        if architecture == "gpt2" and ".c_" in name and array.ndim == 2:
            array = array.T
        if "gemma" in architecture and name.endswith("norm.weight"):
            array = array + 1
        tensors[table.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    get = config.to_dict().get
    rope = get("rope_parameters") or {}
    metadata = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": get("intermediate_size") or get("n_inner"),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": get("num_key_value_heads"),
        "attention.key_length": get("head_dim"),
        "attention.value_length": get("head_dim"),
        "rope.dimension_count": get("head_dim"),
        "rope.freq_base": rope.get("full_attention", rope).get("rope_theta"),
        "attention.sliding_window": get("sliding_window") if architecture in ("gemma2", "gemma3") else None,
        "attn_logit_softcapping": get("attn_logit_softcapping") if architecture == "gemma2" else None,
        "final_logit_softcapping": get("final_logit_softcapping") if architecture == "gemma2" else None,
        "attention.layer_norm_rms_epsilon": get("rms_norm_eps"),
        "attention.layer_norm_epsilon": get("layer_norm_epsilon"),
        **(fields or {}),
    }
    metadata = {f"{architecture}.{key}": value for key, value in metadata.items()}
    ids = {f"tokenizer.ggml.{name}_token_id": get(f"{name}_token_id") for name in ("bos", "eos")}
    return metadata | ids, tensors


def random_model(architecture, **settings_):
    import torch
    import transformers

    common = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    common |= {"max_position_embeddings": 128, "intermediate_size": 96, "num_key_value_heads": 2}
    if architecture == "gpt2":
        common = {"vocab_size": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": 96}
    classes = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT2"}
    classes |= {"gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3Text"}
    config = getattr(transformers, f"{classes[architecture]}Config")(**{**common, **settings_})
    torch.manual_seed(0)
    model = getattr(transformers, open_class(architecture))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def transformers_tensors(path, model):
    """A GGUF file's tensors as transformers reads them for a model of that shape."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    return {name: tensor.float().numpy() for name, tensor in read.items()}


def open_class(architecture):
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    names |= {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
    return (names | {"gpt2": "GPT2LMHeadModel"})[architecture]


CASES = {
    "llama": ("llama", {"rms_norm_eps": 1e-5, "tie_word_embeddings": True}, {}),
    "llama biases, wide heads": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}, {}),
    "llama linear": (
        "llama",
        {"rope_parameters": LINEAR},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0},
    ),
    "llama yarn": (
        "llama",
        {"rope_parameters": YARN},
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
        },
    ),
    "qwen2": (
        "qwen2",
        {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {},
    ),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 32, "rope_parameters": PLAIN}, {}),
    "qwen3 biases, own head": ("qwen3", {"attention_bias": True, "head_dim": 16, "rope_parameters": PLAIN}, {}),
    "gemma": ("gemma", {"head_dim": 16}, {}),
    "gemma2": ("gemma2", {"head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32}, {}),
    "gemma3": ("gemma3", {"head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32}, {}),
    "gpt2": ("gpt2", {}, {}),
}


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES)
def test_config_and_tensors_are_those_of_the_source_and_of_transformers_reader(case, tmp_path):
    architecture, settings_, fields = CASES[case]
    model = random_model(architecture, **settings_)
    fields, tensors = converted(model, architecture, fields)
    kinds = MIXED | {"position_embd": "F16"}
    gguf_files.write(tmp_path / "m.gguf", architecture, fields, tensors, kinds)
    config, read = open_gguf(tmp_path / "m.gguf")
    source = model.config.to_dict()
    for key in SAID[architecture].split():
        assert config[key] == source[key], key
    state = model.state_dict()
    names = set(state) - ({"lm_head.weight"} if config["tie_word_embeddings"] else set())
    assert set(read) == names
    for name in names:
        np.testing.assert_allclose(read[name], state[name].numpy(), atol=0.05)  # quantized: near its source
    if architecture == "gemma":
        return  # which transformers does not read
    theirs = transformers_tensors(tmp_path / "m.gguf", model)
    assert set(theirs) == names
    for name in names:  # bit for bit
        np.testing.assert_array_equal(read[name], theirs[name], err_msg=name)


@pytest.mark.reference
@pytest.mark.parametrize("case", ["qwen3", "gemma", "gemma2", "gemma3"])
def test_a_model_of_the_file_computes_what_its_source_does(case, tmp_path):
    import torch

    architecture, settings_, fields = CASES[case]
    model = random_model(architecture, **settings_)
    fields, tensors = converted(model, architecture, fields)
    path = gguf_files.write(tmp_path / "m.gguf", architecture, fields, tensors)
    ids = np.arange(3, 27)[None]  # longer than the windows
    with torch.no_grad():
        wanted = model.model(torch.tensor(ids)).last_hidden_state.numpy()
    inputs = {"token_ids": ids.astype("int32"), "padding_mask": np.ones_like(ids, "int32")}
    found = np.asarray(tfxformer.from_pretrained(path)(inputs)["sequence_output"])
    assert np.abs(found - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize(
    ("architecture", "layers", "scalar"), [("gemma2", 46, 16), ("gemma2", 2, 32), ("gemma3", 62, 16), ("gemma3", 2, 32)]
)
def test_scores_of_the_largest_gemma_are_scaled_by_hidden_size_per_head(tmp_path, architecture, layers, scalar):
    """llama.cpp knows it by its layers (src/llama-model.cpp, f_attention_scale); no key says it."""
    said = {"context_length": 64, "embedding_length": 64, "block_count": layers, "feed_forward_length": 96}
    said |= {"attention.head_count": 4, "attention.key_length": 32, "attention.layer_norm_rms_epsilon": 1e-6}
    said |= {"attention.sliding_window": 8} if architecture == "gemma3" else {}
    fields = {f"{architecture}.{key}": value for key, value in said.items()}
    table = {"token_embd.weight": np.ones((8, 64), "float32")}
    config, _ = open_gguf(gguf_files.write(tmp_path / "m.gguf", architecture, fields, table))
    assert config["query_pre_attn_scalar"] == scalar
    if architecture == "gemma2":
        absent = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")
        assert [config[key] for key in absent] == [50.0, 30.0, 4096]


def test_gemma3_stretches_the_positions_of_full_layers_only(tmp_path):
    said = {"context_length": 64, "embedding_length": 64, "block_count": 6, "feed_forward_length": 96}
    said |= {"attention.head_count": 4, "attention.key_length": 32, "attention.layer_norm_rms_epsilon": 1e-6}
    said |= {"attention.sliding_window": 8, "rope.freq_base": 1e6, "rope.scaling.type": "linear"}
    fields = {f"gemma3.{key}": value for key, value in {**said, "rope.scaling.factor": 8.0}.items()}
    table = {"token_embd.weight": np.ones((8, 64), "float32")}
    config, _ = open_gguf(gguf_files.write(tmp_path / "m.gguf", "gemma3", fields, table))
    assert config["model_type"] == "gemma3_text"
    assert config["rope_parameters"] == {
        "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    }


@pytest.mark.reference
def test_llama3_scaling_is_found_again_from_its_frequencies(tmp_path):
    pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    model = random_model("llama", rope_parameters=LLAMA3, head_dim=64, max_position_embeddings=131072)
    plain = 1 / 500000.0 ** (np.arange(0, 64, 2) / 64)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](model.config, None)
    factors = (plain / scaled.numpy()).astype("float32")
    fields, tensors = converted(model, "llama")
    gguf_files.write(tmp_path / "m.gguf", "llama", fields, tensors | {"rope_freqs.weight": factors})
    config, read = open_gguf(tmp_path / "m.gguf")
    assert config["rope_parameters"] == LLAMA3
    assert "rope_freqs.weight" not in set(read)
    gguf_files.write(tmp_path / "o.gguf", "llama", fields, tensors | {"rope_freqs.weight": factors**1.1})
    with pytest.raises(CheckpointError, match="not those of Llama 3's"):
        open_gguf(tmp_path / "o.gguf")


@pytest.mark.samples
@pytest.mark.reference
def test_smollm2_is_read_as_transformers_reads_it():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    path = samples.smollm2()
    config, read = open_gguf(path)
    with torch.device("meta"):  # names and shapes are asked for, not 135 million random weights
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config))
    theirs = transformers_tensors(path, model)
    assert set(read) == set(theirs)
    assert sum(int(np.prod(read.shape(name))) for name in read) == 134_515_008
    for name in read:
        assert np.array_equal(read[name], theirs[name]), name


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
