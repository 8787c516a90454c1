"""Architectures of GGUF files: config, tensors and outputs against the source's, and transformers' own reader."""

import json
import math

import gguf_files
import numpy as np
import pytest
import tiny
from gguf_files import MIXED, pairs

import tfxformer
from tfxformer import samples, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.gguf_models import open_gguf
from tfxformer.text import Tokenizer

gguf = pytest.importorskip("gguf")

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
    "phi3": "vocab_size hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads "
    "rms_norm_eps max_position_embeddings sliding_window tie_word_embeddings hidden_act",
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
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.25, 1.5, 2.0, 2.5],
    "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}


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
    for name in ("long", "short") if rope.get("rope_type") == "longrope" else ():
        tensors[f"rope_factors_{name}.weight"] = np.float32(rope[f"{name}_factor"])
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
        "attention.sliding_window": get("sliding_window") if architecture in ("gemma2", "gemma3", "phi3") else None,
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
    classes |= {"phi3": "Phi3", "gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3Text"}
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
    names |= {
        "phi3": "Phi3ForCausalLM",
        "gemma": "GemmaForCausalLM",
        "gemma2": "Gemma2ForCausalLM",
        "gemma3": "Gemma3ForCausalLM",
    }
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
    "phi3": ("phi3", {"pad_token_id": 0, "sliding_window": 8}, {"rope.dimension_count": 16}),
    "phi3 longrope": (
        "phi3",
        {"pad_token_id": 0, "rope_parameters": LONG, "original_max_position_embeddings": 16},
        {
            "rope.dimension_count": 12,
            "rope.scaling.original_context_length": 16,
            "rope.scaling.attn_factor": (1 + math.log(128 / 16) / math.log(16)) ** 0.5,
            "attention.sliding_window": 0,
        },
    ),
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
    if architecture == "gemma" or case == "phi3 longrope":
        return  # which transformers does not read, of the latter the factors
    theirs = transformers_tensors(tmp_path / "m.gguf", model)
    assert set(theirs) == names
    for name in names:  # bit for bit
        np.testing.assert_array_equal(read[name], theirs[name], err_msg=name)


@pytest.mark.reference
@pytest.mark.parametrize("case", ["qwen3", "gemma", "gemma2", "gemma3", "phi3", "phi3 longrope"])
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


@pytest.mark.reference
def test_an_embedders_file_says_how_it_pools(tmp_path):
    """Qwen3-Embedding's: the last token, which the tokenizer puts there; right: torch's vector of that token."""
    import torch

    trained = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 300, ["<|endoftext|>", "<|im_end|>"])
    parts = json.loads(trained.tokenizer_json())["model"]
    tokens = trained.vocabulary()
    model = random_model("qwen3", vocab_size=len(tokens), tie_word_embeddings=True, head_dim=16, rope_parameters=PLAIN)
    fields, tensors = converted(model, "qwen3", {"pooling_type": int(gguf.PoolingType.LAST)})
    said = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": [3, 3] + [1] * (len(tokens) - 2)}
    said |= {"merges": [" ".join(merge) for merge in parts["merges"]], "bos_token_id": 0, "eos_token_id": 0}
    said |= {"padding_token_id": 0, "add_eos_token": True}
    fields |= {f"tokenizer.ggml.{key}": value for key, value in said.items()}
    path = gguf_files.write(tmp_path / "m.gguf", "qwen3", fields, tensors)
    embedder = tasks.TextEmbedder.from_pretrained(path)
    assert (embedder.pooling, embedder.normalize) == ("lasttoken", True)
    texts = ["good film", "a very good cat sat on the mat"]
    for text, vector in zip(texts, embedder.predict(texts, verbose=0), strict=True):
        ids = [*trained.ids([text])[0], 0]
        with torch.no_grad():
            last = model.model(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
        np.testing.assert_allclose(vector, last / np.linalg.norm(last), atol=1e-5)
    saved = tasks.TextEmbedder.from_pretrained(embedder.save_pretrained(tmp_path / "saved"))
    np.testing.assert_allclose(saved.predict(texts, verbose=0), embedder.predict(texts, verbose=0), atol=1e-6)
    ranking = gguf_files.write(tmp_path / "r.gguf", "qwen3", fields | {"qwen3.pooling_type": 4}, tensors)
    with pytest.raises(CheckpointError, match="pools tokens by kind 4"):
        open_gguf(ranking)
