"""peft's files: against peft on torch in both directions, and what is refused."""

import json
import shutil

import make_fixtures
import numpy as np
import pickle_files
import pytest
import tiny
from adapter_cases import adapted, classifier, everything, language_model, outputs, randomize
from checkpoint_folders import outputs_in_transformers

import tfxformer
from tfxformer import tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.files import safetensors
from tfxformer.compression import Adapters, LoRA

TOLERANCE = 1e-5


def files(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, dict(safetensors.SafetensorsFile(folder / "adapter_model.safetensors"))


def configure(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change(folder, function):
    """Rewrites a folder's tensors."""
    tensors = {name: np.array(array) for name, array in files(folder)[1].items()}
    function(tensors)
    safetensors.write(folder / "adapter_model.safetensors", tensors)


# ---- without torch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [classifier, language_model, lambda: language_model("gpt2")])
def test_round_trip_is_exact(make, tmp_path):
    model = make()
    adapters = adapted(model, targets=everything, rslora=True)
    wanted = outputs(model)
    adapters.save(tmp_path / "films", base="owner/name")
    assert files(tmp_path / "films")[0]["base_model_name_or_path"] == "owner/name"
    adapters.load(tmp_path / "films", "again")
    assert adapters.active == "again"
    np.testing.assert_allclose(outputs(model), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    adapters.save(tmp_path / "twice")
    for one, two in zip(files(tmp_path / "films"), files(tmp_path / "twice"), strict=True):
        assert one.keys() == two.keys()
    adapters.activate(None)
    adapters.save(tmp_path / "inactive", "films")  # from where it waits
    for name, array in files(tmp_path / "films")[1].items():
        np.testing.assert_array_equal(files(tmp_path / "inactive")[1][name], array)


def test_the_files_of_a_classifier(tmp_path):
    model = classifier()
    adapted(model, targets=("query", "feed_forward/output")).save(tmp_path)
    config, tensors = files(tmp_path)
    assert config["target_modules"] == ["0.output.dense", "1.output.dense", "query"]  # no "attention.output.dense"
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (3, 6, "SEQ_CLS")
    assert config["modules_to_save"] == ["classifier"]
    prefix = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_"
    weights = tiny.weights(model)
    path = "encoder_block_1/self_attention/query/films/lora_"
    np.testing.assert_array_equal(tensors[prefix + "A.weight"], weights[path + "a"].T)
    np.testing.assert_array_equal(tensors[prefix + "B.weight"], weights[path + "b"].T)
    np.testing.assert_array_equal(tensors["base_model.model.classifier.weight"], weights["classifier/output/kernel"].T)
    assert len(tensors) == 2 * 2 * 2 + 2


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "films"
    adapted(classifier()).save(folder)
    return folder


@pytest.fixture
def saved(films, tmp_path):
    """A folder of a good adapter for `classifier()`."""
    return shutil.copytree(films, tmp_path / "films")


@pytest.fixture(scope="module")
def refusing():
    """A `classifier()` that no file is for."""
    return classifier()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "VERA"}, "peft_type is 'VERA'; tfxformer reads LORA, ADALORA, IA3"),
        ({"use_dora": True}, "says use_dora=True, which tfxformer does not have"),
        ({"bias": "lora_only"}, "says bias='lora_only'"),
        ({"from_the_future": {"a": 1}}, "says from_the_future={'a': 1}"),
        ({"init_lora_weights": "pissa"}, "says init_lora_weights='pissa'"),
        ({"lora_bias": True, "layer_replication": [[0, 2]]}, r"lora_bias=True, layer_replication=\[\[0, 2\]\]"),
        ({"r": 5}, "factors of rank 3 and 3, adapter_config.json says 5"),
        ({"rank_pattern": {"layer.1.*value": 4}}, "layer.1.attention.self.value' has factors of rank 3 and 3.* says 4"),
    ],
)
def test_options_that_we_do_not_have(saved, changes, message, refusing):
    configure(saved, **changes)
    before = [variable.path for variable in refusing.trainable_variables]
    with pytest.raises(CheckpointError, match=message):
        Adapters(refusing).load(saved)
    assert [variable.path for variable in refusing.trainable_variables] == before


def test_options_without_effect(saved):
    """All that peft 0.21 writes beside, and patterns of alpha as peft matches them."""
    written = {"init_lora_weights": "gaussian", "loftq_config": {}, "eva_config": None, "layers_pattern": None}
    configure(saved, **written, use_dora=False, lora_bias=False, megatron_core="megatron.core", qalora_group_size=16)
    configure(saved, alpha_pattern={"attention.self.value": 12})
    model = classifier()
    Adapters(model).load(saved)
    scales = {layer.name: layer.adapter.scale for layer in model._flatten_layers() if getattr(layer, "adapter", None)}
    assert scales == {"query": 2.0, "value": 4.0}


@pytest.mark.parametrize("by_torch", [False, pytest.param(True, marks=pytest.mark.reference)])
def test_the_older_files_are_the_same_adapter(saved, tmp_path, by_torch):
    """adapter_model.bin, as peft's save_pretrained(safe_serialization=False) writes it: torch.save of a dict."""
    tensors = files(saved)[1]
    first, second = classifier(), classifier()
    Adapters(first).load(saved)
    (saved / "adapter_model.safetensors").unlink()
    if by_torch:
        import torch

        written = {name: torch.tensor(np.array(array)) for name, array in tensors.items()}
        torch.save(written, saved / "adapter_model.bin")
    else:
        pickle_files.write(saved / "adapter_model.bin", tensors)
    Adapters(second).load(saved)
    wanted = {path: array for path, array in tiny.weights(first).items() if "/lora_" in path or "classifier" in path}
    assert wanted
    for path, array in wanted.items():
        np.testing.assert_array_equal(tiny.weights(second)[path], array, err_msg=path)


def test_an_older_file_that_runs_code_is_refused(saved, refusing):
    (saved / "adapter_model.safetensors").unlink()
    (saved / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is not read: its pickle names 'os\.system'"):
        Adapters(refusing).load(saved)


def test_files_of_another_model(saved, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"4 modules that this model does not have.*belongs to another base model"
    ):
        Adapters(language_model()).load(saved)
    with pytest.raises(
        CheckpointError, match=r"is for a kernel \[32, 32\].* has \[16, 16\]: it belongs to another base"
    ):
        Adapters(classifier(encoder__hidden_size=16)).load(saved)
    three = tasks.TextClassifier(tiny.backbone("bert"), ["a", "b", "c"])
    with pytest.raises(CheckpointError, match=r"classifier.weight' .*shape \[2, 32\], the model wants \[3, 32\]"):
        Adapters(three).load(saved)
    with pytest.raises(CheckpointError, match=r"no place for: classifier.bias, classifier.weight"):
        Adapters(tasks.MaskedLM(tiny.backbone("bert"))).load(saved)
    with pytest.raises(CheckpointError, match="4 modules that this model does not have"):
        Adapters(tiny.backbone("bert")).load(saved)  # of a bare encoder the names have no prefix


def test_damaged_files(saved, tmp_path, refusing):
    with pytest.raises(CheckpointError, match=r"no adapter_config.json"):
        Adapters(refusing).load(tmp_path / "nowhere")
    whole = shutil.copytree(saved, tmp_path / "whole")
    first = next(name for name in files(whole)[1] if "lora_A" in name)
    change(saved, lambda tensors: tensors.pop(first))
    with pytest.raises(CheckpointError, match=r"has only lora_B.weight of .*, no lora_A.weight"):
        Adapters(refusing).load(saved)
    change(whole, lambda tensors: tensors.update({"strange": tensors[first]}))
    with pytest.raises(CheckpointError, match=r"'strange' .* does not begin with"):
        Adapters(refusing).load(whole)
    change(whole, lambda tensors: tensors.pop("strange"))
    change(whole, lambda tensors: [tensors.pop(name) for name in list(tensors) if "lora" in name])
    with pytest.raises(CheckpointError, match=r"no lora_A.weight and lora_B.weight"):
        Adapters(refusing).load(whole)
    (whole / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        Adapters(refusing).load(whole)


def test_an_adapter_read_in_trains_and_merges(saved):
    model = classifier()
    adapters = Adapters(model)
    adapters.load(saved, "films")
    wanted = outputs(model)
    adapters.merge()
    np.testing.assert_allclose(outputs(model), wanted, atol=1e-6)
    adapters.unmerge()
    names = {variable.name for variable in model.trainable_variables}
    assert names == {"lora_a", "lora_b", "kernel", "bias"} and len(model.trainable_variables) == 10


# ---- against peft ---------------------------------------------------------------------------------------------

ALL = "all-linear"
CASES = {  # case of make_fixtures -> peft's LoraConfig
    "bert-shards": {"target_modules": ["query", "value"], "r": 4, "lora_alpha": 16, "task_type": "SEQ_CLS"},
    "bert-gelu-new-eps": {"target_modules": ["key", "dense"], "r": 3, "use_rslora": True, "task_type": "TOKEN_CLS"},
    "bert-quick-gelu": {"target_modules": r".*layer\.1.*(key|dense)", "task_type": "QUESTION_ANS"},
    "bert-bare": {"target_modules": ["query", "dense"], "layers_to_transform": [0]},
    "distilbert-classifier": {"target_modules": ["q_lin", "lin2"], "task_type": "SEQ_CLS"},
    "llama-lm": {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 16, "task_type": "CAUSAL_LM"},
    "llama-llama3": {
        "target_modules": ALL,
        "r": 2,
        "rank_pattern": {"layers.1.mlp.down_proj": 5},
        "alpha_pattern": {"o_proj": 3},
        "task_type": "CAUSAL_LM",
    },
    "gpt2-lm": {"target_modules": ["c_attn", "c_fc"], "r": 4, "lora_alpha": 16, "task_type": "CAUSAL_LM"},
    "gpt2-classifier": {"target_modules": ["c_attn"], "r": 2, "task_type": "SEQ_CLS"},
    "neox-lm": {"target_modules": ["query_key_value", "dense_h_to_4h"], "task_type": "CAUSAL_LM"},
    "codegen-lm": {"target_modules": ["qkv_proj"], "task_type": "CAUSAL_LM"},
    "falcon-7b": {"target_modules": ["query_key_value"], "task_type": "CAUSAL_LM"},
    "gptj-lm": {"target_modules": ["k_proj", "fc_in"], "task_type": "CAUSAL_LM"},
    "qwen2-window": {"target_modules": ["k_proj", "gate_proj"], "task_type": "CAUSAL_LM"},
}
ADALORA = {"init_r": 3, "total_step": 1, "lora_alpha": 5}
OTHERS = {  # kind, case -> the same for another kind; peft's own targets where none are named
    ("IA3", "bert-shards"): {"task_type": "SEQ_CLS"},  # also the outputs of attention, as feed-forward ones
    ("IA3", "distilbert-classifier"): {
        "target_modules": ["k_lin", "ffn.lin2"], "feedforward_modules": ["ffn.lin2"], "task_type": "SEQ_CLS"
    },
    ("IA3", "llama-lm"): {"task_type": "CAUSAL_LM"},
    ("IA3", "gpt2-lm"): {"task_type": "CAUSAL_LM"},
    ("IA3", "neox-lm"): {
        "target_modules": ["query_key_value"], "feedforward_modules": [], "task_type": "CAUSAL_LM"
    },
    ("IA3", "codegen-lm"): {"target_modules": ["qkv_proj"], "feedforward_modules": [], "task_type": "CAUSAL_LM"},
    ("AdaLora", "bert-shards"): {**ADALORA, "target_modules": ["query", "dense"], "task_type": "SEQ_CLS"},
    ("AdaLora", "llama-lm"): {**ADALORA, "target_modules": ALL, "task_type": "CAUSAL_LM"},
    ("AdaLora", "gpt2-lm"): {**ADALORA, "target_modules": ["c_attn", "c_fc"], "task_type": "CAUSAL_LM"},
    ("PromptTuning", "bert-shards"): {"num_virtual_tokens": 3, "task_type": "SEQ_CLS"},
    ("PromptTuning", "bert-gelu-new-eps"): {"num_virtual_tokens": 3, "task_type": "TOKEN_CLS"},
    ("PromptTuning", "gpt2-lm"): {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
    ("PromptTuning", "llama-lm"): {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
    ("PrefixTuning", "gpt2-lm"): {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
    ("PrefixTuning", "llama-lm"): {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
    ("PrefixTuning", "gptj-lm"): {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
    ("PrefixTuning", "neox-lm"): {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
}  # fmt: skip
VIRTUAL = ("PromptTuning", "PrefixTuning")
# One of each kind on an encoder, on separate projections and on fused ones; patterns, regular expressions, all layers.
EVERY_CHANGE = {
    *(("Lora", name) for name in ("bert-shards", "bert-quick-gelu", "llama-llama3", "gpt2-lm", "neox-lm")),
    *(("IA3", name) for name in ("bert-shards", "llama-lm", "codegen-lm")),
    *(("AdaLora", name) for name in ("bert-shards", "llama-lm")),
    *(("PromptTuning", name) for name in ("bert-gelu-new-eps", "llama-lm")),
    *(("PrefixTuning", name) for name in ("gpt2-lm", "llama-lm")),
}
TASKS = {
    "text-classification": tasks.TextClassifier,
    "token-classification": tasks.TokenClassifier,
    "question-answering": tasks.QuestionAnswering,
    "causal-lm": tasks.CausalLM,
}


def in_torch(folder, case):
    """The reference model of a case's folder."""
    import transformers

    name = make_fixtures.architecture(case.family, case.head)
    return getattr(transformers, name).from_pretrained(folder, attn_implementation="eager").float().eval()


def torch_outputs(model, inputs):
    """What a peft model computes, asked without peft's own `forward`: that for answers drops token_type_ids.

    A prompt is put in front by peft's own alone; its positions are no outputs of ours.
    """
    import torch

    virtual = getattr(model.active_peft_config, "num_virtual_tokens", 0)
    if virtual:
        names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
        tensors = {names[key]: torch.tensor(array.astype("int64")) for key, array in inputs.items() if key in names}
        with torch.no_grad():
            logits = model.eval()(**tensors).logits.numpy()
        return logits[:, -inputs["token_ids"].shape[1] :] if logits.ndim == 3 else logits
    results = make_fixtures.run(model.get_base_model().eval(), inputs)
    return results[next(name for name in ("logits", "sequence_output", "hidden_states") if name in results)]


def open_ours(name, folder, tokenizer):
    head = make_fixtures.CASES[name].head
    return (
        tfxformer.from_pretrained(folder) if head is None else TASKS[head].from_pretrained(folder, tokenizer=tokenizer)
    )


def assert_same(ours, wanted, inputs):
    """On valid positions, within the tolerance of the largest value (at least 1)."""
    wanted = wanted[-1] if wanted.ndim == 4 else wanted  # hidden states
    ours = np.asarray(ours["sequence_output"] if isinstance(ours, dict) else ours)
    valid = inputs["padding_mask"].astype(bool)
    ours, wanted = (array[valid] if array.ndim == 3 else array for array in (ours, wanted))
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=TOLERANCE * max(1.0, np.abs(wanted).max()))


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(*case, marks=[] if case in EVERY_CHANGE else [pytest.mark.slow])
        for case in (*(("Lora", name) for name in CASES), *OTHERS)
    ],
)
def test_equals_peft_in_both_directions(kind, name, tiny_tokenizer, tmp_path):
    import peft
    import torch

    case = make_fixtures.CASES[name]
    folder, inputs, plain = make_fixtures.make(name, tmp_path / "base")
    options = OTHERS.get((kind, name)) or CASES[name]
    theirs = peft.get_peft_model(in_torch(folder, case), getattr(peft, f"{kind}Config")(**options))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:  # factors, and heads that are trained whole
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(tmp_path / "theirs")
    if kind in VIRTUAL and case.head == "causal-lm":  # positions of rows that are padded on the left are peft's own
        inputs = {**inputs, "padding_mask": np.ones_like(inputs["padding_mask"])}
    wanted = torch_outputs(theirs, inputs)

    model = open_ours(name, folder, tiny_tokenizer)
    adapters = Adapters(model)
    adapters.load(tmp_path / "theirs")
    assert_same(model(inputs), wanted, inputs)
    changed = np.abs(
        wanted - plain[next(key for key in ("logits", "sequence_output", "hidden_states") if key in plain)]
    )
    assert changed.max() > 0.05  # the adapter does something

    # Back, as it is, and with other factors of ours (those of a fused module no longer share theirs).
    for seed in (None, 7):
        if seed is not None:
            randomize(model, seed)
        adapters.save(tmp_path / f"ours-{seed}")
        again = peft.PeftModel.from_pretrained(in_torch(folder, case), tmp_path / f"ours-{seed}")
        if kind not in VIRTUAL:  # of which peft keeps one
            missing = again.load_adapter(tmp_path / f"ours-{seed}", "again").missing_keys
            assert not [key for key in missing if ".again." in key]
        assert_same(model(inputs), torch_outputs(again, inputs), inputs)
    if kind in VIRTUAL:
        return
    adapters.merge()
    assert_same(model(inputs), torch_outputs(again, inputs), inputs)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_adalora_whose_ranks_peft_has_taken(tiny_tokenizer, tmp_path):
    """A file with fewer ranks in one module than in others; the scale stays that of the rank at first."""
    import peft
    import torch

    name = "bert-shards"
    folder, inputs, _ = make_fixtures.make(name, tmp_path / "base")
    config = peft.AdaLoraConfig(**ADALORA, target_modules=["query"], task_type="SEQ_CLS")
    theirs = peft.get_peft_model(in_torch(folder, make_fixtures.CASES[name]), config)
    kept = [True, False, True]
    with torch.no_grad():
        for path, parameter in theirs.named_parameters():
            if "lora_" in path:
                parameter.add_(0.2)
            if path.endswith("layer.0.attention.self.query.lora_E.default"):
                parameter[1] = 0.0
                config.rank_pattern = {path.removeprefix("base_model.model."): kept}
    theirs.save_pretrained(tmp_path / "theirs")
    model = open_ours(name, folder, tiny_tokenizer)
    adapters = Adapters(model)
    adapters.load(tmp_path / "theirs")
    assert sorted(one.rank for one in adapters.layers.values()) == [2, *[3] * (len(adapters.layers) - 1)]
    assert_same(model(inputs), torch_outputs(theirs, inputs), inputs)
    adapters.save(tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(in_torch(folder, make_fixtures.CASES[name]), tmp_path / "ours")
    assert_same(model(inputs), torch_outputs(again, inputs), inputs)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [classifier, lambda: language_model("llama")])
def test_a_new_adapter_of_ours_opens_in_peft(make, tmp_path):
    """Chosen, made and saved here, on a checkpoint of ours; rsLoRA's scale among it."""
    import peft
    import torch

    model = make()
    model.save_pretrained(tmp_path / "base")
    adapters = Adapters(model)
    adapters.add("films", LoRA(rank=4, alpha=8, rslora=True, targets=everything))
    randomize(model)
    adapters.save(tmp_path / "films")
    inputs = tiny.inputs_for(model)
    case = make_fixtures.Case(model.backbone.config.family, model.task_name)
    theirs = peft.PeftModel.from_pretrained(in_torch(tmp_path / "base", case), tmp_path / "films").eval()
    names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
    with torch.no_grad():
        logits = theirs(**{names[key]: torch.tensor(array.astype("int64")) for key, array in inputs.items()}).logits
    assert_same(model(inputs), logits.numpy(), inputs)
    adapters.merge()
    model.save_pretrained(tmp_path / "merged")
    if "segment_ids" in inputs:
        merged = outputs_in_transformers("BertForSequenceClassification", tmp_path / "merged", inputs).logits
        assert_same(model(inputs), merged.numpy(), inputs)
