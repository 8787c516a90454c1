"""What the commands do: plain values in, a dict ready for JSON out; "text" is the same for people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tfxformer import runtime
from tfxformer.cli import console
from tfxformer.cli.doctor import doctor, models
from tfxformer.cli.language import chat, generate, tell_languages, train_lm
from tfxformer.cli.preparing import prepare
from tfxformer.cli.seq2seq import train_seq2seq
from tfxformer.cli.tpu import fit_estimate, tpu_check
from tfxformer.data.files import rows as files
from tfxformer.data.files.table import Table

__all__ = [
    "chat", "compress", "demo", "doctor", "evaluate", "export", "finetune", "fit_estimate", "generate", "inspect",
    "models", "page", "predict", "prepare", "prune", "tpu_check", "train_lm", "train_seq2seq", "tune", "write_app",
]  # fmt: skip

# The other imports are in the functions: running or reading a .tflite file must not wait for TensorFlow.


def demo(output: Path, quick: bool) -> dict:
    """The BBC topics, from checkpoint to .tflite: the results of `recipes.story.run`."""
    from tfxformer.recipes.models import load_tasks

    load_tasks()
    from tfxformer.recipes import bbc_topics, story

    return story.run(bbc_topics.STORY, output, quick, console.verbose(), console.say)


def compress(recipe, output) -> dict:
    """Runs the sweep of a recipe: the results of `recipes.sweep.run`."""
    from tfxformer.recipes.models import load_tasks

    load_tasks()
    from tfxformer.recipes import sweep

    return sweep.run_recipe(recipe, output, console.verbose(), console.say)


def tune(recipe, output) -> dict:
    """Searches for the settings of a recipe: the results of `recipes.sweep.tuning.run_recipe`."""
    from tfxformer.recipes.models import load_tasks

    load_tasks()
    from tfxformer.recipes.sweep import tuning

    return tuning.run_recipe(recipe, output, console.verbose(), console.say)


def finetune(
    model, data, output, task, labels, problem_type, seed, dtype, sequence_length, columns, **training
) -> dict:
    """Trains a model on a data file: the results of its fit and what was written."""
    from tfxformer.recipes.models import open_task, task_class

    task_class(task)
    import keras

    from tfxformer.data.files.labelled import task_arguments, tell_columns

    rows = files.read_rows(data, task, given=columns)
    targets, arguments = task_arguments(rows, task, problem_type, labels)
    keras.utils.set_random_seed(seed)
    opened = open_task(model, task, **arguments, sequence_length=sequence_length, dtype=dtype)
    tell_columns(rows, console.say)
    return _train(opened, rows, targets, output, seed=seed, columns=columns, **training)


def prune(model, data, output, seed, columns, **training) -> dict:
    """Goes on training a model while its smallest weights become zero: the results and what was written."""
    from tfxformer.recipes.models import open_task

    task = open_task(model)
    import keras

    keras.utils.set_random_seed(seed)
    return _train(task, *_labelled(task, data, columns), output, seed=seed, columns=columns, **training)


def evaluate(model, data, batch_size, source_language, target_language, columns) -> dict:
    """Scores a model or a .tflite file on labelled texts."""
    from tfxformer.data.evaluation import scores, task_name
    from tfxformer.recipes.models import open_model

    opened = open_model(model)
    tell_languages(opened, source_language, target_language)
    rows, targets = _labelled(opened, data, columns)
    texts = files.task_inputs(rows, task_name(opened))
    return {"model": model, "texts": len(texts), "scores": scores(opened, texts, targets, batch_size)}


def export(
    model,
    file,
    quantization,
    sequence_length,
    sequence_lengths,
    representative,
    calibration,
    float_layers,
    accuracy_gate,
    cache_length,
    prefill_lengths,
    tolerance,
    source_language,
    target_language,
    columns,
) -> dict:
    """Writes a verified .tflite file: the `ExportReport` as a dict."""
    from tfxformer.recipes.models import open_task

    lengths = None if sequence_lengths is None else _integers("--sequence-lengths", sequence_lengths)
    prefill = None if prefill_lengths is None else _integers("--prefill-lengths", prefill_lengths)
    task = open_task(model)
    tell_languages(task, source_language, target_language)
    from tfxformer.export import AccuracyGate, export_litert

    texts = gate = None
    if representative is not None:
        rows = files.read_rows(representative, task.task_name, labelled=False, given={**columns, "label": None})
        texts = files.task_inputs(rows, task.task_name)
    if accuracy_gate is not None:
        rows, targets = _labelled(task, accuracy_gate, columns)
        gate = AccuracyGate(files.task_inputs(rows, task.task_name), targets)
    report = export_litert(
        task,
        file,
        quantization,
        sequence_length=sequence_length,
        sequence_lengths=lengths,
        cache_length=cache_length,
        prefill_lengths=prefill,
        tolerance=tolerance,
        representative=texts,
        calibration=calibration,
        float_layers=float_layers,
        accuracy_gate=gate,
    )
    console.say_next_steps(file)
    return report.to_dict()


def page(file, output, packages) -> dict:
    """Writes a web page that runs a .tflite file: the `PageReport` as a dict."""
    report = runtime.write_page(file, output, packages)
    return {**report.to_dict(), "text": str(report)}


def predict(model, texts, pairs, file, entities, explain, columns) -> dict:
    """Answers for texts, or for those of a file: what the task's own `predict` gives, as JSON values.

    With `entities` those of a tagger in place of its labels, with `explain` what each word adds to a classifier's.
    """
    from tfxformer.data import evaluation
    from tfxformer.recipes.models import open_model

    if bool(texts) == (file is not None):
        raise ValueError("Give texts, or a data file with --file: one of the two.")
    if pairs is not None and len(pairs) != len(texts):
        raise ValueError(f"{len(texts)} texts but {len(pairs)} --pair: give each text one.")
    opened = open_model(model)
    if evaluation.task_name(opened) == files.WRITES_TARGETS:
        raise ValueError(f"{model} writes texts: tfxformer generate runs it, of a file with --file.")
    task = evaluation.task_name(opened)
    if file is None:
        rows = files.rows_of(_table(texts, pairs), task, labelled=False)
    else:
        rows = files.read_rows(file, task, labelled=False, given=columns)
    if entities:
        return _entities(model, opened, texts or rows.texts)
    if pairs is not None and rows.pairs is None:
        raise ValueError(f"--pair: {model} is a model of {task}, which reads single texts.")
    inputs = files.task_inputs(rows, task)
    if explain:
        return _explanations(model, opened, inputs)
    found = evaluation.predict(opened, inputs)
    return {
        "model": model,
        "predictions": [_prediction(opened, *row) for row in zip(inputs, found, strict=True)],
    }


def inspect(path) -> dict:
    """What a LiteRT file, a checkpoint folder or a .keras file holds."""
    from tfxformer.recipes.models import is_litert, open_task

    if is_litert(path):
        found = runtime.inspect(path)
        return {**found.to_dict(), "text": str(found)}
    task = open_task(path)
    from tfxformer.compression import sparsity_report

    report = sparsity_report(task)
    facts = {
        "path": path,
        "task": task.task_name,
        "labels": getattr(task, "labels", None),
        "sequence_length": task.sequence_length,
        "parameters": report.weights.parameters,
        "config": task.backbone.config.to_dict(),
    }
    return {**facts, "sparsity": report.to_dict(), "text": _inspection_text(facts, report)}


def write_app(model, platform, output, texts) -> dict:
    """Writes an app around a LiteRT file: what `runtime.write_app` says."""
    found = runtime.write_app(model, output, platform, texts)
    said = "{folder}: {task} by {runtime}, with {answers} answers of Python's\nNext: {next}"
    return {**found, "text": said.format_map(found)}


def _inspection_text(facts: dict, report) -> str:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            parts = {key: part for key, part in value.items() if not isinstance(part, dict)}
            stacks = {key: part for key, part in value.items() if isinstance(part, dict)}
            for stack, switches in {name: parts, **stacks}.items():
                lines.append(f"{stack}: " + ", ".join(_said(switches)))
        elif value is not None:
            lines.append(f"{name}: {value}")
    return "\n".join([*lines, "", str(report)])


def _said(switches: dict, prefix: str = "") -> list[str]:
    """name=value of each switch that has one, nested ones by their path."""
    said = []
    for name, value in switches.items():
        if isinstance(value, dict):
            said += _said(value, f"{prefix}{name}__")
        elif value is not None:
            said.append(f"{prefix}{name}={value}")
    return said


def _train(task, rows, targets, output, *, validation, seed, columns, sparsity=None, **dials) -> dict:
    """Fits, with pruning where a sparsity is given, and writes the folder."""
    from tfxformer.compression import sparsity_report
    from tfxformer.recipes import pipeline
    from tfxformer.recipes.sweep.tuning import inputs, training

    texts = files.task_inputs(rows, task.task_name)
    texts, targets, held_out = inputs.hold_out(task, texts, targets, validation, seed, columns, console.say)
    examples = None if sparsity is None else _examples(task, texts)
    given = {"validation_data": held_out, "verbose": console.verbose(), "sparsity": sparsity, "examples": examples}
    numbers, kept = training.fit(task, texts, targets, **dials, **given)
    result = {
        "task": task.task_name,
        "labels": getattr(task, "labels", None),
        "sequence_length": task.sequence_length,
        "training_texts": len(texts),
        "sparsity": sparsity_report(task).kernels.sparsity,
        "last_epoch": {name: values[-1] for name, values in numbers.items()},
    }
    if dials.get("early_stopping") is not None:
        result["best_epoch"] = {"epoch": kept + 1, **{name: values[kept] for name, values in numbers.items()}}
    return pipeline.write_fit(task, output, result, numbers)


def _examples(task, texts) -> int:
    """What a fit takes its batches of: texts, or for answers windows of contexts."""
    if task.task_name == "question-answering":
        return len(task.windows(task.read(texts)).example_ids)
    return len(texts)


def _table(texts: list[str], pairs: list[str] | None) -> Table:
    places = [f"text {number}" for number in range(1, len(texts) + 1)]
    return Table("arguments", places, {"text": texts, **({} if pairs is None else {"text_pair": pairs})})


def _labelled(model, data: Path, columns: dict):
    """The rows of a data file and the targets that a model wants, its labels checked; what was read is said."""
    from tfxformer.data.files.labelled import labelled

    return labelled(model, data, columns, console.say)


def _entities(model, opened, texts) -> dict:
    from tfxformer.data.evaluation import task_name
    from tfxformer.data.highlights import highlight

    if task_name(opened) != "token-classification":
        raise ValueError(
            f"--entities: {model} is a model of {task_name(opened)}; a token-classification one finds them."
        )
    found = opened.entities(texts)
    wholes = [text if isinstance(text, str) else " ".join(text) for text in texts]
    rows = list(zip(wholes, found, strict=True))
    return {
        "model": model,
        "predictions": [{"text": text, "entities": [asdict(entity) for entity in row]} for text, row in rows],
        "text": "\n".join(_listed_entities(text, row, highlight) for text, row in rows),
    }


def _listed_entities(text: str, found, highlight) -> str:
    shown = highlight(text, found) if console.coloured() else text
    lines = [f"{one.label}\t{one.text}\t{one.score:.3f}\t{one.start}-{one.end}" for one in found]
    return "\n".join([shown, *(lines or ["no entity"])])


def _explanations(model, opened, inputs) -> dict:
    from tfxformer.data.evaluation import task_name

    if task_name(opened) != "text-classification":
        raise ValueError(f"--explain: {model} is a model of {task_name(opened)}; it is for text-classification.")
    if not hasattr(opened, "explain"):
        raise ValueError(
            f"--explain: {model} is a LiteRT file, which has no gradients; give the folder or .keras file that it was "
            "made from."
        )
    found = opened.explain(list(inputs))
    return {
        "model": model,
        "predictions": [{"text": text, **_explanation(one)} for text, one in zip(inputs, found, strict=True)],
        "text": "\n".join(map(_listed_explanation, found)),
    }


def _explanation(found) -> dict:
    facts = asdict(found)
    return {name: facts[name] for name in ("label", "probability", "score", "baseline_score", "words")}


def _listed_explanation(found) -> str:
    shown = found.highlighted() if console.coloured() else "\n".join(found.texts)
    words = [f"{word.weight:+.3f}\t{word.text}\t{word.start}-{word.end}" for word in found.words]
    return "\n".join([f"{found.label} {found.probability:.3f}: {shown}", *words])


def _prediction(model, text, found) -> dict:
    from tfxformer.data.evaluation import task_name

    task = task_name(model)
    if task == "text-classification":
        numbers = {label: float(value) for label, value in zip(model.labels, found, strict=True)}
        if model.problem_type == "regression":
            return {"text": text, "scores": numbers}
        if model.problem_type == "multi_label_classification":
            return {
                "text": text,
                "labels": [k for k, v in numbers.items() if v > 0.5],
                "probabilities": numbers,
            }
        return {"text": text, "label": max(numbers, key=numbers.get), "probabilities": numbers}
    if task == "token-classification":
        return {"words": text, "labels": list(found)}
    if task == "question-answering":
        return {"text": text, "answers": [asdict(answer) for answer in found]}
    if task == "text-embedding":
        return {"text": text, "embedding": [float(value) for value in found]}
    # Each mask's candidates, best first: the first part is the token, the last its probability.
    return {"text": text, "fillings": [{row[0]: float(row[-1]) for row in mask} for mask in found]}


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{option} {text!r}: wanted numbers and commas, such as 32,64,128.") from error
