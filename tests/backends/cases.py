"""What both backends compute alike, in a process of its own or in this one.

    KERAS_BACKEND=jax python cases.py FOLDER CELLS.json PART...

writes into the folder `0.npz` and on, what each training of CELLS.json ends with, and of the parts that are named:
"texts", `texts.json`, what models generate;
"tasks", `classifier/`, `lora/` and `classifier.keras`, models fitted on texts, and `logits.npz`, what they answer;
"others", `others.npz`, the losses of the other tasks, and what a classifier with fewer heads answers;
"measured", `measured.npz`, importances and sensitivities;
"watched", `watched.npz`, what callbacks see inside the steps;
"resumed", `resume.json`, how trainings end that were interrupted.
With XLA_FLAGS=--xla_force_host_platform_device_count=8 there are devices for every mesh.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))  # `resume_cases`
sys.path.insert(0, str(Path(__file__).parent.parent))  # `tiny`

import numpy as np
import tiny

ROWS, LENGTH, LABELS, BATCH = 76, 12, 7, 8  # the last batch of an epoch has 4 rows, which 8 devices cannot share
SHAPES = ("bert", "gpt2", "llama", "t5")  # of BERT, GPT-2, SmolLM2 and T5
ONE, DATA, MODEL, MODEL_4 = None, "data", (2, 4), (4, 2)


def cell(family="bert", dropout=0.0, accumulation=1, mesh=ONE):
    """A training."""
    return {"family": family, "dropout": dropout, "accumulation": accumulation, "mesh": mesh}


def name(cell) -> str:
    """Of a training, for files and tables."""
    mesh = cell["mesh"] if cell["mesh"] in (ONE, DATA) else "x".join(map(str, cell["mesh"]))
    return f"{cell['family']} dropout {cell['dropout']} accumulation {cell['accumulation']} on {mesh or 'one'}"


def model_of(cell):
    """A tagger of a family's backbone, 2 layers of width 32, with weights drawn by numpy."""
    import keras

    import tfxformer
    from tfxformer import training

    keras.utils.set_random_seed(1)
    stacks = tiny.config(cell["family"]).stacks
    dropout = {f"{stack}__{kind}": cell["dropout"] for stack in stacks for kind in ("dropout", "attention_dropout")}
    backbone = tfxformer.build(tiny.config(cell["family"], **dropout))
    outputs = backbone.output
    hidden = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    tagger = training.DistributedModel(backbone.inputs, keras.layers.Dense(LABELS, name="head")(hidden))
    tiny.perturb(tagger)
    return tagger


def data_of(tagger):
    """(inputs, labels, weights): every row counts another number of tokens, and some none."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, tiny.VOCABULARY_SIZE, (ROWS, LENGTH)).astype("int32")
    lengths = rng.integers(2, LENGTH + 1, (ROWS, 1))
    mask = (np.arange(LENGTH) < lengths).astype("int32")
    arrays = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
    inputs = {one.name: arrays[one.name.removeprefix("encoder_").removeprefix("decoder_")] for one in tagger.inputs}
    counted = mask * (rng.random(mask.shape) < rng.random((ROWS, 1)))
    return inputs, rng.integers(0, LABELS, ids.shape).astype("int32"), counted.astype("float32")


def train(cell, epochs=2, measured=True) -> dict:
    """Fits, and if `measured` evaluates and predicts; the weights and metrics as arrays by name."""
    import keras

    from tfxformer import training

    if cell["mesh"] is not ONE:
        training.strategy("auto", mesh=None if cell["mesh"] == DATA else cell["mesh"])
    try:
        tagger = model_of(cell)
        accumulation = {"gradient_accumulation_steps": cell["accumulation"]} if cell["accumulation"] > 1 else {}
        # A large epsilon: with the usual one the steps of weights whose gradient is rounding noise would be noise too.
        optimizer = training.AdamW(1e-3, epsilon=1e-4, global_clipnorm=0.05, **accumulation)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
        tagger.compile(optimizer, loss, weighted_metrics=["accuracy"])
        x, y, weights = data_of(tagger)
        given = {"sample_weight": weights, "batch_size": BATCH, "verbose": 0}
        history = tagger.fit(x, y, epochs=epochs, shuffle=False, **given).history
        metrics = tagger.evaluate(x, y, return_dict=True, **given) if measured else {}
        predicted = {"predicted": tagger.predict({k: v[:5] for k, v in x.items()}, verbose=0)} if measured else {}
    finally:
        if cell["mesh"] is not ONE:
            keras.distribution.set_distribution(None)
    arrays = {f"weight {index}": _numpy(weight) for index, weight in enumerate(tagger.trainable_variables)}
    arrays |= {f"fit {key}": np.array(values) for key, values in history.items()}
    arrays |= {f"evaluate {key}": np.array(value) for key, value in metrics.items()}
    return {**arrays, **predicted, "updates": np.array(int(optimizer.iterations))}


def resume(folder) -> dict:
    """What differs where a training was interrupted: of each kind of data the names of such arrays."""
    import resume_cases

    kinds = {
        "arrays": {"accumulation": 4},
        "python": {"accumulation": 1, "ema": True},
        "epochs": {"accumulation": 2, "save_freq": 3},
    }
    return {
        data: resume_cases.differences(resume_cases.case(data=data, epochs=2, **more), Path(folder) / data)
        for data, more in kinds.items()
    }


def fit_records(folder) -> dict:
    """A masked language model fitted on records, interrupted and not: the losses of both."""
    from tfxformer import data, tasks, training

    folder = Path(folder)
    with tempfile.TemporaryDirectory() as words:
        tokenizer = tiny.tokenizer(words)
    (folder / "corpus.txt").write_text("\n\n".join(tiny.TEXTS * 4), encoding="utf-8")
    data.prepare_records(folder / "corpus.txt", folder / "records", tokenizer, sequence_length=16, kind="masked")
    records = data.Records(folder / "records", tokenizer=tokenizer)
    found = {}
    for name, epochs in {"whole": (2,), "resumed": (1, 2)}.items():
        for until in epochs:
            lm = tiny.perturb(tasks.MaskedLM(tiny.backbone(), tokenizer=tokenizer))
            lm.compile(training.AdamW(1e-3))
            history = lm.fit(lm.epochs(records, 8), epochs=until, callbacks=[training.Resume(folder / name)], verbose=0)
        found[name] = history.history["loss"]
    return found


def _numpy(variable):
    from tfxformer.backend import whole_value

    return whole_value(variable)


def generate() -> dict:
    """Tokens and texts of a decoder and an encoder-decoder, by every way of choosing them."""
    from tfxformer import generation, tasks

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tiny.tokenizer(folder)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [7] * 20]
    lm = tiny.perturb(tasks.CausalLM(tiny.backbone("llama"), tokenizer))
    sampled = {"sampler": generation.TopP(0.9, temperature=1.5), "seed": 3}
    penalized = {"sampler": generation.Random(), "processors": [generation.RepetitionPenalty(1.3)], "seed": 5}
    beams = generation.Beams(3, length_penalty=0.8)
    found = {
        "greedy": generation.generate(lm, prompts, 12),
        "sampled": generation.generate(lm, prompts, 12, **sampled),
        "penalized": generation.generate(lm, prompts, 12, **penalized),
        "drafted": generation.generate(lm, prompts, 12, speculation=generation.PromptLookup()),
        "beams": [beam.ids for beam in generation.beam_search(lm, prompts, 10, beams=beams, stop_ids=[17, 18])],
        "texts": lm.generate(["good film", "bad"], max_new_tokens=8),
    }
    writer = tiny.perturb(tasks.Seq2SeqLM(tiny.backbone("t5"), tokenizer))
    texts = ["good film and a very good cat", "bad"]
    found["written"] = writer.generate(texts, max_new_tokens=8)
    found["written by beams"] = writer.generate(texts, max_new_tokens=8, sampler=generation.Beams(3))
    return found


def _tokenizer():
    with tempfile.TemporaryDirectory() as words:
        return tiny.tokenizer(words)


def _classifier(seed=0):
    from tfxformer import tasks

    backbone = tiny.backbone(seed=seed)
    return tiny.perturb(tasks.TextClassifier(backbone, ["negative", "positive"], tokenizer=_tokenizer()), seed)


SETTINGS = {"epochs": 1, "batch_size": 8, "verbose": 0}


def fit_tasks(folder) -> dict:
    """Fits classifiers on texts, saves them in every form, and returns what they answer."""
    from tfxformer import compression

    folder = Path(folder)
    whole = _classifier()
    whole.fit(tiny.TEXTS, tiny.LABELS, shuffle=False, **SETTINGS)  # an order by chance is each backend's own
    whole.save_pretrained(folder / "classifier")
    whole.save(folder / "classifier.keras")
    adapted = _classifier()
    adapters = compression.Adapters(adapted)
    adapters.add("films", compression.LoRA(rank=4))
    adapted.fit(tiny.TEXTS, tiny.LABELS, **SETTINGS)
    adapters.save(folder / "lora", base="nobody/tiny")
    return {"classifier": whole.predict(tiny.TEXTS[:6], verbose=0), "lora": adapted.predict(tiny.TEXTS[:6], verbose=0)}


def fit_others() -> dict:
    """The losses of the other tasks, fitted on texts."""
    from tfxformer import compression, tasks
    from tfxformer.text import Tokenizer

    pieces = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)
    trained = {
        "masked": tasks.MaskedLM(tiny.backbone(), tokenizer=_tokenizer()),
        "causal": tasks.CausalLM(tiny.backbone("gpt2"), _tokenizer()),
        "written": tasks.Seq2SeqLM(tiny.backbone("marian", vocabulary_size=290), pieces),
        "distilled": compression.Distiller(_classifier(3), _classifier(4)),
    }
    data = {"written": (tiny.TEXTS, tiny.TEXTS[::-1]), "distilled": (tiny.TEXTS, tiny.LABELS)}
    found = {}
    for name, model in trained.items():
        found[name] = np.array(model.fit(*data.get(name, (tiny.TEXTS * 4,)), **SETTINGS).history["loss"])
    return found


def fewer_heads() -> np.ndarray:
    """What a classifier answers that has lost a head."""
    from tfxformer import compression

    fewer = _classifier()
    compression.remove_heads(fewer, 1)
    return fewer.predict(tiny.TEXTS[:6], verbose=0)


def explain(classifier) -> np.ndarray:
    """What words add to a label, by gradients and by attention."""
    methods = ("integrated_gradients", "attention_rollout")
    found = [classifier.explain(tiny.TEXTS[:3], label="negative", method=method) for method in methods]
    return np.array([word.weight for texts in found for one in texts for word in one.words])


def measure() -> dict:
    """What a classifier and a language model would miss most, by every way of measuring it."""
    from tfxformer import compression, tasks

    with tempfile.TemporaryDirectory() as words:
        tokenizer = tiny.tokenizer(words)
    labels = ["negative", "positive"]
    classifier = tiny.perturb(tasks.TextClassifier(tiny.backbone(), labels, tokenizer=tokenizer))
    lm = tiny.perturb(tasks.CausalLM(tiny.backbone("llama"), tokenizer))
    labelled = (tiny.TEXTS[:10], tiny.LABELS[:10])
    found = {}
    for name, model, data in (("classifier", classifier, labelled), ("lm", lm, tiny.TEXTS[:10])):
        for measured in ("head", "neuron", "layer"):
            importance = getattr(compression, f"{measured}_importance")
            found[f"{name} {measured}"] = importance(model, "taylor", data, batch_size=4)
    report = compression.sensitivity(classifier, labelled, sparsities=(0.3, 0.6), batch_size=4)
    found["explanations"] = explain(classifier)
    found["sensitivity"] = np.array([row.value for row in report.rows])
    return found


def environment() -> dict:
    """Of a child on JAX: eight virtual devices, and this package."""
    kept = {key: value for key, value in os.environ.items() if key not in ("TF_CONFIG", "PYTEST_ADDOPTS")}
    return kept | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
    }


def run_script(python, script, *arguments) -> None:
    """Runs a file by another Python, on JAX with eight virtual devices, and waits for its end."""
    command = [str(python), *map(str, (script, *arguments))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stderr[-3000:]


def run_on_jax(python, folder, cells, *parts) -> dict:
    """Runs this file by another Python; the versions that it has."""
    run_script(python, __file__, folder, cells, *parts)
    return json.loads((Path(folder) / "versions.json").read_text(encoding="utf-8"))


def write_resumed(folder):
    found = {"differences": resume(folder / "resume"), "losses": fit_records(folder)}
    (folder / "resume.json").write_text(json.dumps(found), encoding="utf-8")


def write_watched(folder):
    import watched_cases

    np.savez(folder / "watched.npz", **watched_cases.watch())


PARTS = {
    "texts": lambda folder: (folder / "texts.json").write_text(json.dumps(generate()), encoding="utf-8"),
    "tasks": lambda folder: np.savez(folder / "logits.npz", **fit_tasks(folder)),
    "others": lambda folder: np.savez(folder / "others.npz", **fit_others(), **{"fewer heads": fewer_heads()}),
    "measured": lambda folder: np.savez(folder / "measured.npz", **measure()),
    "watched": write_watched,
    "resumed": write_resumed,
}


def main(folder, cells, *parts) -> None:
    """All that a child writes; where no part is named, trainings are only trainings."""
    import jax
    import keras

    for number, one in enumerate(json.loads(Path(cells).read_text(encoding="utf-8"))):
        np.savez(folder / f"{number}.npz", **train(one, measured=bool(parts)))
    for part in parts:
        PARTS[part](folder)
    versions = {"keras": keras.__version__, "jax": jax.__version__}
    (folder / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    assert "tensorflow" not in sys.modules, "something imported TensorFlow"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
