"""Tiny random checkpoints by transformers, every parameter perturbed, and what torch computes with them.

`python tests/make_fixtures.py` writes the stored ones into tests/fixtures (needs the extra [reference]), or those named
after it; the reference tests make all of them anew, live. A case is data: a family, a class with a head (or none), and
odd configuration.
"""

import functools
import json
import sys
from pathlib import Path

import decoder_cases
import encoder_cases
import gpt_cases
import llama_cases
import numpy as np
from decoder_cases import VOCABULARY_SIZE, Case

# Family -> what its classes' names begin with.
DECODERS = {**decoder_cases.CLASSES, **gpt_cases.CLASSES, **llama_cases.CLASSES}
FOLDER = Path(__file__).parent / "fixtures"
HEADS = {
    None: "Model",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "masked-lm": "ForMaskedLM",
    "pretraining": "ForPreTraining",
    "causal-lm": "ForCausalLM",
}
CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "data2vec-text": "Data2VecText",
    "ernie": "Ernie",
    "distilbert": "DistilBert",
    "albert": "Albert",
    "electra": "Electra",
    **encoder_cases.CLASSES,
    **DECODERS,
}
SIZES = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}
DISTILBERT_SIZES = {
    "vocab_size": VOCABULARY_SIZE,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": 40,
}


_ROBERTA = {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
_ELECTRA = {"embedding_size": 16}
_ALBERT = {"embedding_size": 16}
CASES = {
    "bert-bare": Case("bert"),
    "bert-gelu-new-eps": Case("bert", "token-classification", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    "bert-relu-three-types": Case("bert", "masked-lm", {"hidden_act": "relu", "type_vocab_size": 3}, stored=True),
    "bert-silu-one-type": Case("bert", "text-classification", {"hidden_act": "silu", "type_vocab_size": 1}),
    "bert-quick-gelu": Case("bert", "question-answering", {"hidden_act": "quick_gelu"}),
    "bert-legacy-pretraining": Case("bert", "pretraining", files="legacy", stored=True),
    "bert-no-pooler": Case("bert", files="no-pooler", stored=True),
    "bert-shards": Case("bert", "text-classification", {"num_labels": 5}, files="shards", stored=True),
    "roberta-bare": Case("roberta", None, {**_ROBERTA, "hidden_act": "relu"}),
    "roberta-masked-lm": Case("roberta", "masked-lm", {**_ROBERTA, "hidden_act": "silu"}, stored=True),
    "roberta-two-types": Case("roberta", "text-classification", {**_ROBERTA, "type_vocab_size": 2}),
    "roberta-tagger": Case("roberta", "token-classification", {**_ROBERTA, "pad_token_id": 3}),
    "roberta-answers": Case("roberta", "question-answering", _ROBERTA, files="legacy"),
    "xlm-roberta-classifier": Case("xlm-roberta", "text-classification", _ROBERTA, stored=True),
    "xlm-roberta-masked-lm": Case("xlm-roberta", "masked-lm", {**_ROBERTA, "hidden_act": "gelu_new"}),
    "camembert-masked-lm": Case("camembert", "masked-lm", _ROBERTA),
    "camembert-classifier": Case("camembert", "text-classification", _ROBERTA),
    "data2vec-tagger": Case("data2vec-text", "token-classification", _ROBERTA),
    "data2vec-masked-lm": Case("data2vec-text", "masked-lm", _ROBERTA),
    "ernie-masked-lm": Case("ernie", "masked-lm", {"type_vocab_size": 4}),
    "ernie-tasks": Case("ernie", "masked-lm", {"type_vocab_size": 4, "use_task_id": True, "task_type_vocab_size": 5}),
    "ernie-classifier": Case("ernie", "text-classification"),
    "distilbert-bare": Case("distilbert", None, {"activation": "relu"}),
    "distilbert-classifier": Case("distilbert", "text-classification", {"activation": "gelu"}, stored=True),
    "distilbert-masked-lm": Case("distilbert", "masked-lm", {"activation": "relu"}, stored=True),
    "distilbert-tagger": Case("distilbert", "token-classification", files="shards"),
    "distilbert-answers": Case("distilbert", "question-answering"),
    "albert-bare": Case("albert", None, _ALBERT),
    "albert-groups": Case(
        "albert",
        "masked-lm",
        {**_ALBERT, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2, "hidden_act": "relu"},
        stored=True,
    ),
    "albert-classifier": Case("albert", "text-classification", {"embedding_size": 24}, stored=True),
    "albert-pretraining": Case("albert", "pretraining", _ALBERT, files="legacy"),
    "albert-tagger": Case("albert", "token-classification", _ALBERT),
    "albert-answers": Case("albert", "question-answering", _ALBERT),
    "electra-discriminator": Case("electra", "pretraining", _ELECTRA, stored=True),
    "electra-generator": Case("electra", "masked-lm", {**_ELECTRA, "hidden_act": "relu"}, stored=True),
    "electra-same-width": Case("electra", "text-classification", {"embedding_size": 24, "hidden_act": "silu"}),
    "electra-tagger": Case("electra", "token-classification", {**_ELECTRA, "type_vocab_size": 3}),
    "electra-answers": Case("electra", "question-answering", _ELECTRA),
    **encoder_cases.CASES,
    **decoder_cases.CASES,
    **gpt_cases.CASES,
    **llama_cases.CASES,
}


def architecture(family: str, head: str | None) -> str:
    """The reference's class."""
    odd = {("gpt2", "causal-lm"): "GPT2LMHeadModel", ("gemma3_text", "causal-lm"): "Gemma3ForCausalLM"}
    odd |= {
        ("xlnet", "masked-lm"): "XLNetLMHeadModel",
        ("xlnet", "question-answering"): "XLNetForQuestionAnsweringSimple",
    }
    odd["qwen3_5_text", "causal-lm"] = "Qwen3_5ForCausalLM"
    return odd.get((family, head), CLASSES[family] + HEADS[head])


def is_decoder(case: Case) -> bool:
    return case.family in DECODERS


def _traits(case: Case) -> set:
    """What a case has: a family, a head, a form of files, and what its config states.

    Heads of decoders are alike, encoders have a head each; switches and files are read alike for each kind of stack.
    """
    kind = "decoder" if is_decoder(case) else "encoder"
    head = (kind if kind == "decoder" else case.family, "head", case.head)
    found, stated = {case.family, head, (kind, "files", case.files)}, [((), case.config)]
    for path, value in stated:  # grows as it is walked
        if isinstance(value, dict):
            stated += [((*path, key), one) for key, one in value.items()]
        else:  # one number is as good as another, a name or a switch is not
            found.add((kind, *path, value if isinstance(value, str | bool | None) else "a number"))
    return found


@functools.cache
def is_first(name: str) -> bool:
    """Whether a case has something that none before it has: these are compared live by every change, all by hand."""
    names = list(CASES)
    before = (_traits(CASES[other]) for other in names[: names.index(name)])
    return not _traits(CASES[name]) <= set().union(*before)


def keys_of(case: Case) -> dict:
    """The keys of a case's config.json, sizes among them."""
    sizes = {
        "distilbert": DISTILBERT_SIZES,
        **encoder_cases.SIZES,
        **decoder_cases.SIZES,
        **gpt_cases.SIZES,
        **llama_cases.SIZES,
    }
    return {**sizes.get(case.family, SIZES), **case.config}


def make_model(case: Case):
    """The torch model of a case, in eval mode, every parameter perturbed."""
    import torch
    import transformers

    config = getattr(transformers, CLASSES[case.family] + "Config")(**keys_of(case))
    config._attn_implementation = case.attention
    model = getattr(transformers, architecture(case.family, case.head))(config).eval()
    generator = torch.Generator().manual_seed(len(str(case)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
        if case.files == "shards":  # what the file can hold
            model.to(torch.bfloat16).float()
    return model


def make_inputs(case: Case, seed=0) -> dict:
    """A batch of the case: a full row, a padded one, and one with the padding id inside and a hidden token."""
    generator = np.random.default_rng(seed)
    if is_decoder(case):
        return decoder_cases.make_inputs(case, generator)
    settings = {**encoder_cases.SIZES.get(case.family, {}), **case.config}
    padding_id = settings.get("pad_token_id", 0)
    token_ids = generator.integers(5, VOCABULARY_SIZE, (3, 12)).astype("int32")
    mask = np.ones((3, 12), "int32")
    mask[1, 8:] = 0
    mask[2, 5] = mask[2, 11] = 0
    if case.family in encoder_cases.PADDED_IN_FRONT:
        mask = np.ascontiguousarray(mask[:, ::-1])
    token_ids[mask == 0] = padding_id
    token_ids[2, 3] = padding_id  # a padding id that is not masked: RoBERTa does not count its position
    inputs = {"token_ids": token_ids, "padding_mask": mask}
    types = 0 if case.family in ("distilbert", *encoder_cases.NO_SEGMENTS) else settings.get("type_vocab_size", 2)
    if types > 1:
        inputs["segment_ids"] = generator.integers(0, types, (3, 12)).astype("int32")
    return inputs


def run(model, inputs: dict) -> dict:
    """Torch's hidden states [L+1, B, S, D] and, where the model has a head, its logits."""
    import torch

    if model.config.model_type in DECODERS:
        return decoder_cases.run(model, inputs)
    names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
    tensors = {names[name]: torch.tensor(array.astype("int64")) for name, array in inputs.items()}
    with torch.no_grad():
        outputs = model(**tensors, output_hidden_states=True)
    results = {"hidden_states": torch.stack(outputs.hidden_states).numpy()}
    if model.config.model_type in encoder_cases.FINAL_NORM:
        *states, last = results["hidden_states"]
        results = {"hidden_states": np.stack(states), "sequence_output": last}
    if "start_logits" in outputs:
        results["logits"] = torch.stack([outputs.start_logits, outputs.end_logits], -1).numpy()
    for name, key in (("logits", "logits"), ("prediction_logits", "logits"), ("pooler_output", "pooled_output")):
        if outputs.get(name) is not None:
            results[key] = outputs[name].numpy()
    return results


def save(case: Case, model, folder: Path) -> None:
    """Writes the checkpoint's folder as the case wants its files."""
    import torch
    from safetensors.torch import load_file, save_file

    if case.files == "shards":
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="6KB")
        model.float()
        return
    model.save_pretrained(folder)
    if case.files == "published":
        encoder_cases.publish(folder)
        return
    if case.files == "old":
        config = encoder_cases.old_config(json.loads((folder / "config.json").read_text()))
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if case.files == "legacy":
        tensors = {_legacy(name): tensor for name, tensor in tensors.items()}
        tensors[f"{model.base_model_prefix}.embeddings.position_ids"] = torch.arange(40)[None]
    if case.files == "no-pooler":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler")}
    save_file(tensors, path, metadata={"format": "pt"})


def _legacy(name: str) -> str:
    if "LayerNorm" not in name:
        return name
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def make(name: str | Case, folder: Path) -> tuple[Path, dict, dict]:
    """Writes the checkpoint of a case into `folder`; returns it, its inputs and torch's results."""
    case = CASES[name] if isinstance(name, str) else name
    model = make_model(case)
    inputs = make_inputs(case)
    folder.mkdir(parents=True, exist_ok=True)
    if is_decoder(case):
        model = decoder_cases.save(case, model, folder)
    else:
        save(case, model, folder)
    return folder, inputs, run(model, inputs)


def main() -> None:
    """Writes the stored fixtures anew, or those named on the command line."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    for name in sys.argv[1:] or [name for name, case in CASES.items() if case.stored]:
        folder, inputs, results = make(name, FOLDER / name)
        np.savez_compressed(
            folder / "expected.npz", **{f"input_{key}": value for key, value in inputs.items()}, **results
        )
        print(f"{name}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e3:.0f} kB")
    (FOLDER / "versions.json").write_text(json.dumps({"transformers": transformers.__version__}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
