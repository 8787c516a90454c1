"""A Keras model, ours or any, to a verified .tflite file."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras

import tfxformer
from tfxformer.arguments.keywords import checked
from tfxformer.backend import needs_tensorflow
from tfxformer.export import convert, plan, seq2seq_model, verify
from tfxformer.export import language_model as decoder
from tfxformer.export.batches import listed
from tfxformer.export.merged_adapters import merged_adapters
from tfxformer.export.quantization import calibration, quantize
from tfxformer.export.quantization.accuracy_gate import AccuracyGate
from tfxformer.files import check_writable, write_bytes
from tfxformer.runtime.format import flatbuffer, metadata

MOST_SAMPLES = 24  # of the representative data; the check runs each on Keras


@dataclass(frozen=True)
class ExportReport:
    """What was written and what was measured of it.

    Attributes:
        path: str.
        bytes: int, size of the file.
        zipped_bytes: int, its size after deflate: what an app store ships, and where pruning shows.
        quantization: str.
        signatures: tuple of str.
        error: float, the largest relative L2 error of any signature against Keras on the samples.
        tolerance: float, the error the mode allows.
        weight_bytes: int, bytes of the constants of the largest signature.
        samples: int, samples each signature was verified on.
        mediapipe: bool, whether MediaPipe's text tasks open the file on raw text.
        mediapipe_reason: str, why they do not, or "".
        seconds: float.
        greedy_agreement: float or None, of a decoder the share of tokens after which the file's most likely next
            token is Keras'.
        float_layers: tuple of str, paths of the layers that, with all in them, compute in float32 in an int8 file.
        score, keras_score: float or None, of the file and of Keras on the texts of the accuracy gate.
    """

    path: str
    bytes: int
    zipped_bytes: int
    quantization: str
    signatures: tuple[str, ...]
    error: float
    tolerance: float
    weight_bytes: int
    samples: int
    mediapipe: bool
    mediapipe_reason: str
    seconds: float
    greedy_agreement: float | None = None
    float_layers: tuple[str, ...] = ()
    score: float | None = None
    keras_score: float | None = None

    def to_dict(self) -> dict:
        """The report as JSON-ready values."""
        return {**asdict(self), "signatures": list(self.signatures), "float_layers": list(self.float_layers)}


@checked
def export_litert(
    model,
    path: str | Path,
    quantization: str = "dynamic_int8",
    *,
    sequence_length: int | None = None,
    sequence_lengths: Iterable[int] | None = None,
    cache_length: int | None = None,
    prefill_lengths: Iterable[int] | None = None,
    full_cache: bool | None = None,
    representative=None,
    calibration: str = "min_max",
    float_layers: int | Iterable[str] = 0,
    samples=None,
    tolerance: float | None = None,
    accuracy_gate: AccuracyGate | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes a task or a Keras model as a LiteRT file of builtin operators only, verified first.

    Args:
        model: one of `tfxformer.tasks`, or any Keras model with symbolic inputs (KerasHub's included).
        path: the .tflite file; missing folders are made.
        quantization: "float32", "float16", "dynamic_int8", "int8", "int16x8", "int4" or "int4_block32" (a scale for
            every 32 weights: for decoders).
        sequence_length: int S; every input is int32 [1, S]. None takes the task's own, or 128.
        sequence_lengths: several S: one signature each (`classify_64`, `classify_128`), sharing the weights.
        cache_length: of a causal language model, T: prompt and answer together. None for 1040, or all positions of
            a smaller model; at a multiple of 1024 decoding is slower (`decoder.CACHE_LENGTH`). Of a `Seq2SeqLM` the
            tokens of a target; None for its target_length, or 128.
        prefill_lengths: of a causal language model, how many prompt tokens one call reads; None for 16 and 128.
        full_cache: whether layers that see a window keep all T slots (for LiteRT-LM); None, that alone if well below T.
        representative: texts, (text, pair) tuples or batches that calibrate "int8" and "int16x8", and round int4's.
        calibration: how "int8" chooses the ranges of activations: "min_max", "percentile", "mse" (`calibration`).
        float_layers: of "int8", what stays float32: how many parts (blocks), the most sensitive ones, or layers' paths.
        samples: the same kinds, on which the file is verified; None takes texts of ours (random inputs for a
            model without a tokenizer) and those that calibrate.
        tolerance: float, the largest relative L2 error of the outputs on the samples; None for the mode's own. A
            larger one is for those who have measured that the file serves: the report tells both.
        accuracy_gate: labelled texts on which the file may lose a stated number of points, or is not written.
        progress: told what is being done, in a few words, before each long step.

    Returns:
        ExportReport.

    Raises:
        ExportError: the model does not convert, or its file fails a check; nothing was written.
        ValueError: the arguments do not fit together. OSError: the file cannot be written; nothing of it is left.
    """
    needs_tensorflow("Export to LiteRT")
    path = Path(path).expanduser()
    mode = quantize.mode(quantization, tolerance)
    mode, float_layers = check_choices(mode, calibration, float_layers, representative)
    sequence, cached = (sequence_length, sequence_lengths), (cache_length, prefill_lengths, full_cache)
    check_arguments(model, sequence, cached)
    prepare = _preparation(model, mode, sequence, cached, representative, float_layers, samples)
    if accuracy_gate is not None:
        accuracy_gate.check_model(model)
    check_writable(path)
    return _export(model, path, mode, prepare, accuracy_gate, progress or (lambda step: None))


def _export(model, path, mode, prepare, accuracy_gate, progress) -> ExportReport:
    """Converts, verifies and writes what was checked."""
    start, scores = time.perf_counter(), ()
    if accuracy_gate is not None:  # first: a score that there is not is told before the long work
        progress(f"scoring Keras on {len(accuracy_gate.texts)} texts")
        scores = (accuracy_gate.keras_score(model),)
    with ThreadPoolExecutor(1) as aside, plan.float32_layers(model), merged_adapters(model):
        job = prepare()
        mode = job.mode or mode
        progress(f"converting to {mode.name}: {', '.join(p.signature.name for p in job.plans)}")
        converted = convert.convert([p.signature for p in job.plans], mode, job.stream)
        content, reason = finish(model, converted.content, job, mode)
        zipped = aside.submit(lambda: len(zlib.compress(content, 6)))
        progress(f"verifying against Keras on {job.samples} samples")
        measured = job.check(converted)
    verify.check_unchanged(content, converted.content, job.plans)
    if accuracy_gate is not None:
        progress(f"scoring the file on {len(accuracy_gate.texts)} texts")
        scores += (accuracy_gate.check(model, content, mode, *scores),)
    progress(f"writing {path}")
    write_bytes(path, content)
    sizes = len(content), zipped.result()
    return make_report(path, sizes, mode, measured, reason, time.perf_counter() - start, *scores)


def check_arguments(model, sequence: tuple, cached: tuple) -> None:
    """Refuses what is no model, and lengths that the model does not have.

    Raises:
        TypeError: for what is no Keras model. ValueError: naming the lengths it has.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model must be a task or a Keras model, got {type(model).__name__}: open a file by "
            "keras.models.load_model(path), a checkpoint folder by the from_pretrained of its task."
        )
    wrong, right = ("cache_length, prefill_lengths and full_cache", "sequence_length")
    if decoder.is_decoder(model):
        wrong, right, cached = right, "cache_length and prefill_lengths", sequence
    elif seq2seq_model.is_seq2seq(model):  # its decoder has a cache, which the source does not fill
        wrong, right = "prefill_lengths and full_cache", "sequence_length and cache_length"
        cached = cached[1:]
    if any(value is not None for value in cached):
        raise ValueError(f"{type(model).__name__} is exported with {right}; {wrong} would mean nothing.")


def _preparation(model, mode, sequence, cached, representative, float_layers, samples) -> Callable[[], plan.ExportJob]:
    """What makes the job of a model of its kind, the arguments checked."""
    if decoder.is_decoder(model):
        return decoder.prepare(model, mode, *cached, representative, samples)
    lengths = resolve_lengths(model, *sequence)
    if seq2seq_model.is_seq2seq(model):
        if representative is not None:
            raise ValueError(
                "Files of encoder-decoders are neither calibrated nor rounded by texts: leave out representative."
            )
        return seq2seq_model.prepare(model, mode, lengths, cached[0], samples)
    return _prepare(model, mode, lengths, representative, float_layers, samples)


def _prepare(model, mode, lengths, representative, float_layers, samples) -> Callable[[], plan.ExportJob]:
    """Checks the arguments of a model that reads whole texts; returns what makes its job."""
    check_mode(mode, lengths, representative)
    data = listed(representative)
    if data is not None and mode.calibrated:
        data = _with_ours(model, data)
        samples = data[:MOST_SAMPLES] if samples is None else samples

    def prepare():
        written = plan.with_outliers_apart(model, mode, lengths[-1], data) if mode.splits_outliers else mode
        if float_layers:
            written = plan.with_float_layers(model, written, lengths[-1], data, float_layers)
        plans = plan.plan_signatures(model, written, lengths, samples)
        read = data is not None and (mode.calibrated or mode.rounded)
        stream = plan.representative_stream(plans, model, data) if read else None
        samples_each = len(plans[0].samples)
        return plan.ExportJob(
            plans, lambda converted: verify.verify(converted, plans, mode), samples_each, stream, written
        )

    return prepare


def make_report(path, sizes, mode, measured, reason, seconds, keras_score=None, score=None) -> ExportReport:
    """Puts together what was written and measured."""
    return ExportReport(
        path=str(path),
        bytes=sizes[0],
        zipped_bytes=sizes[1],
        quantization=mode.name,
        signatures=tuple(measured),
        error=max(m.error for m in measured.values()),
        tolerance=mode.tolerance,
        weight_bytes=max(m.constant_bytes for m in measured.values()),
        samples=min(m.samples for m in measured.values()),
        mediapipe=not reason,
        mediapipe_reason=reason,
        seconds=seconds,
        greedy_agreement=min((m.agreement for m in measured.values() if m.agreement is not None), default=None),
        float_layers=mode.float_layers,
        score=score,
        keras_score=keras_score,
    )


def check_choices(
    mode: quantize.Mode, method: str, float_layers, representative
) -> tuple[quantize.Mode, int | list[str]]:
    """(the mode with its calibration, the float layers as a number or a list of paths).

    Raises:
        ValueError: for a choice that there is not, or that the mode does not have.
    """
    calibration.check_method(method)
    count = isinstance(float_layers, int) and not isinstance(float_layers, bool)
    float_layers = float_layers if count else list(float_layers)
    if count and float_layers < 0:
        raise ValueError(f"float_layers={float_layers} must be a number of layers, or their paths.")
    for name, chosen in (("calibration", method != "min_max"), ("float_layers", bool(float_layers))):
        if chosen and mode.name != "int8":
            raise ValueError(f'{name}= is a choice of quantization="int8"; "{mode.name}" does not have it.')
    if representative is not None and not (mode.calibrated or mode.rounded):
        raise ValueError(
            f'In quantization="{mode.name}" representative data would calibrate nothing: leave it out, or pass it as '
            'samples=... to verify the file on it. "int8" and "int16x8" are calibrated, "int4" and "int4_block32" '
            "rounded by it."
        )
    return replace(mode, calibration=method), float_layers


def check_mode(mode: quantize.Mode, lengths: list, representative) -> None:
    """Refuses a mode that cannot be made of what was given.

    Raises:
        ValueError: saying what to pass. ImportError: for an extra that is not installed.
    """
    quantize.check_available(mode)
    if mode.calibrated and representative is None:
        raise ValueError(
            f'quantization="{mode.name}" quantizes activations: pass representative=texts (some dozens that '
            'the model will meet), or take "dynamic_int8", which needs none.'
        )
    if mode.name == "int16x8" and len(lengths) > 1:
        raise ValueError(
            "The converter calibrates int16x8 wrongly over several signatures (relative error 0.99): "
            "write one file per sequence length, or take another mode."
        )


def resolve_lengths(model, sequence_length, sequence_lengths) -> list[int | None]:
    """The sequence lengths of the file, ascending."""
    if sequence_length is not None and sequence_lengths is not None:
        raise ValueError("Pass sequence_length for one length or sequence_lengths for several, not both.")
    if sequence_lengths is not None:
        lengths = sorted(set(sequence_lengths))
    elif sequence_length is not None or not plan.is_task(model):
        lengths = [sequence_length]
    else:
        lengths = [model.sequence_length or model.file_length or min(plan.DEFAULT_LENGTH, model.backbone.longest_text)]
    if not lengths or any(
        length is not None and (isinstance(length, bool) or int(length) != length or length < 1) for length in lengths
    ):
        raise ValueError(f"Sequence lengths are positive integers, got {lengths}.")
    if plan.is_task(model) and lengths[-1] is not None and lengths[-1] > (most := model.backbone.longest_text):
        positions = model.backbone.config.max_sequence_length
        raise ValueError(f"The model has {positions} positions, for texts of at most {most} tokens; got {lengths}.")
    return lengths


def _with_ours(model, data: list) -> list:
    """Representative texts and ours: calibration must have seen what the file is verified on.

    Batches stay alone: they come with a length and a vocabulary of their own. Where weights are rounded by them, ours
    stay out: the error would be measured on what they were fitted to.
    """
    return [*plan.SAMPLE_TEXTS, *data] if plan.is_task(model) and isinstance(data[0], str) else data


def mediapipe_obstacle(model, plans, outline) -> str:
    """Why MediaPipe's text tasks cannot open the file on raw text, or "".

    One difference stays in a file they do open: MediaPipe's tokenizer keeps the accents that BERT's strips,
    so words with accents become other tokens there.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if not plan.is_task(model) or model.task_name not in ("text-classification", "text-embedding"):
        return "MediaPipe has text tasks for classification and embedding only."
    if model.task_name == "text-classification" and model.problem_type == "regression":
        return "MediaPipe classifies; it has no task for regression."
    if any("\n" in label for label in getattr(model, "labels", None) or ()):
        return "MediaPipe reads one label a line; a label here holds a line break."
    if tokenizer is None:
        return "MediaPipe reads raw text; this model has no tokenizer."
    if model.task_name == "text-embedding" and model.prompts.choose():
        return "MediaPipe puts no prompt in front of texts; this model has a default one."
    if len(plans) > 1:
        return "MediaPipe wants one signature: export with one sequence_length."
    if tokenizer.kind != "WordPiece" or not {"[CLS]", "[SEP]", "[UNK]"} <= set(tokenizer.vocabulary()):
        return f"MediaPipe knows BERT vocabularies only; this tokenizer is {tokenizer.kind}."
    if not tokenizer.lowercase:
        return "MediaPipe lowercases every text, and this vocabulary is cased."
    info = flatbuffer.signatures(outline)[plans[0].signature.name]
    if {tensor.name for tensor in info.inputs} != set(metadata.MEDIAPIPE_INPUTS):
        return f"MediaPipe feeds token, mask and segment ids; this model has {[t.name for t in info.inputs]}."
    return ""


def finish(model, content: bytes, job: plan.ExportJob, mode) -> tuple[bytes, str]:
    """Adds metadata and associated files to a verified file: (bytes, what keeps MediaPipe from it or "")."""
    task, plans = plan.is_task(model), job.plans
    labels = getattr(model, "labels", None) if task else None
    own = metadata.own_entry(
        version=tfxformer.__version__,
        task=model.task_name if task else None,
        problem_type=getattr(model, "problem_type", None) if task else None,
        labels=labels,
        quantization=mode.name,
        signatures={p.signature.name: p.length for p in plans},
        limits=metadata.input_limits(model.backbone.config, plans[0].signature.inputs) if task else None,
        **(model.file_facts() if task else {}),
        **job.facts,
    )
    entries, files, edit = {metadata.OWN_ENTRY: own}, {}, None
    if task and model.tokenizer is not None:
        files[metadata.TOKENIZER] = model.tokenizer.to_json()
    outline = flatbuffer.outline(content)
    reason = mediapipe_obstacle(model, plans, outline)
    if not reason:
        name = plans[0].signature.name
        order = _input_order(outline)
        output = "embedding" if model.task_name == "text-embedding" else "probabilities"
        if output == "probabilities":
            labels = labels or [str(i) for i in range(_columns(outline, name, output))]
            files[metadata.LABELS] = "\n".join(labels)

            # MediaPipe reads every output as one more classifier. The logits were verified; their name goes.
            def edit(unpacked):
                flatbuffer.drop_output(unpacked, name, "logits")

        files[metadata.VOCABULARY] = "\n".join(model.tokenizer.vocabulary())
        entries[metadata.MEDIAPIPE_ENTRY] = metadata.mediapipe_metadata(
            order, output, model.name, f"{model.task_name} by tfxformer {tfxformer.__version__}", bool(labels)
        )
    return metadata.attach(content, entries, files, edit), reason


def _input_order(outline) -> list[str]:
    """Batch keys in the order of the first subgraph's inputs, which is not the signature's."""
    keys = {int(entry.tensorIndex): flatbuffer.text(entry.name) for entry in outline.signatureDefs[0].inputs}
    return [keys[int(index)] for index in outline.subgraphs[0].inputs]


def _columns(outline, signature: str, output: str) -> int:
    outputs = flatbuffer.signatures(outline)[signature].outputs
    return next(tensor.shape[-1] for tensor in outputs if tensor.name == output)
