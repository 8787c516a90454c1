"""What a file offers: the signatures of a task or of any Keras model, and how each is checked.

Shape letters: B batch, S sequence length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from tfxformer.data.prompts import POOLED_MASK
from tfxformer.export.batches import batches, in_groups, unpadded
from tfxformer.export.convert import Signature
from tfxformer.export.errors import ExportError
from tfxformer.export.quantization import carried, sensitivity
from tfxformer.export.quantization.quantize import Mode
from tfxformer.layers.blocks.block import TransformerBlock
from tfxformer.layers.quantization import observing
from tfxformer.layers.quantization.equalization import Observer
from tfxformer.layers.quantization.graph_form import written
from tfxformer.models.backbone import Backbone
from tfxformer.models.encoder_decoder import EncoderDecoder

# task name -> (signature, whether every token has outputs of its own)
TASK_SIGNATURES = {
    "text-classification": ("classify", False),
    "token-classification": ("tag", True),
    "question-answering": ("answer", True),
    "text-embedding": ("embed", False),
    "masked-lm": ("fill_mask", True),
}
# Whose signatures are those of `export.language_model` and of `export.seq2seq_model`.
CAUSAL_LM, SEQ2SEQ_LM = "causal-lm", "seq2seq-lm"
PLAIN_SIGNATURE = "serving_default"  # TensorFlow's and LiteRT's name for the one signature of a plain model
DEFAULT_LENGTH = 128

TOGETHER = 16  # rows that a task reads in one call
MOST_ROWS = 32  # of the representative data; each layer's sensitivity is measured on all of them

# Of several lengths, with the things real texts have: the default texts a file is verified on.
SAMPLE_TEXTS = (
    "Good.",
    "What a film!",
    "The meeting is at 10:30 on Tuesday, room 4B.",
    "I would not recommend this to anyone, least of all to somebody who paid for it.",
    "Prices rose by 3.5% in July, the statistics office said, after a 2.9% increase in June.",
    'She asked: "Où est la gare, s\'il vous plaît?" Nobody answered, so she walked on along the river.',
    "The small team from the north surprised everyone again this season, and its coach, who had never led a "
    "side in the first division before, said after the match that the secret was neither money nor luck but "
    "the patience of the supporters, the work of the young players and a long list of small corrections.",
    "",
)


@dataclass(frozen=True)
class Plan:
    """One signature with what verifies it.

    Attributes:
        signature: what is traced.
        length: int S or None.
        samples: batches of one, the inputs it is checked on.
        reference: one batch -> {output name: array}, what Keras says.
        per_token: bool, whether padded positions of the outputs mean nothing.
        together: int, how many samples one call of Keras may read.
    """

    signature: Signature
    length: int | None
    samples: list[dict]
    reference: Callable[[dict], dict]
    per_token: bool = False
    together: int = 1


@dataclass(frozen=True)
class ExportJob:
    """All that makes one file.

    Attributes:
        plans: its signatures.
        check: what verifies the converted file: converted -> {signature: verify.Measured}; raises ExportError.
        samples: int, how many it is verified on.
        stream: None, or what calibrates it: () -> iterator of (signature name, batch).
        mode: None, or the mode as the model is written in it.
        facts: what else its metadata entry says.
    """

    plans: list[Plan]
    check: Callable
    samples: int
    stream: Callable | None = None
    mode: Mode | None = None
    facts: dict = field(default_factory=dict)


def is_task(model) -> bool:
    """Whether the model is one of our tasks: logits by `forward`, texts by `tokenizer`."""
    return getattr(model, "task_name", None) in (*TASK_SIGNATURES, CAUSAL_LM, SEQ2SEQ_LM) and hasattr(model, "forward")


def has_backbone(model) -> bool:
    """Whether an encoder or decoder of ours is the model or stands inside it."""
    return any(isinstance(layer, Backbone) for layer in model._flatten_layers())


def _has_twins(model) -> bool:
    """Whether layers of several backbones have the same paths, by which what is measured of them is known."""
    paths = [layer.path for layer in model._flatten_layers() if isinstance(layer, TransformerBlock)]
    return len(paths) > len(set(paths))


def plan_signatures(model, mode: Mode, lengths: list[int | None], samples=None) -> list[Plan]:
    """The signatures of a model, one per sequence length.

    Args:
        model: a task or any Keras model with symbolic inputs.
        mode: whose form the graph is written with.
        lengths: sequence lengths; None leaves a plain model's static shapes as they are.
        samples: texts, (text, pair) tuples, or batches; None for ours.
    """
    inside = any(isinstance(layer, EncoderDecoder) for layer in model._flatten_layers())
    if inside and getattr(model, "task_name", None) not in TASK_SIGNATURES:
        raise ValueError(
            f"{type(model).__name__} has an encoder with a decoder inside, and no way to write token by token: export "
            "the tasks.Seq2SeqLM on it, whose file has a signature for each and a cache between them."
        )
    make = _task_plan if is_task(model) else _plain_plan
    if mode.equalized and has_backbone(model) and not _has_twins(model):  # once: signatures share the weights
        longest = make(model, mode, lengths[-1], False, samples)
        seen = in_groups(longest.samples, longest.together)
        if all(tensor.shape[1:] == (None,) for tensor in _named_inputs(model).values()):
            seen = [unpadded(batch) for batch in seen]
        mode = equalized(model, mode, _rows_as_called(model, seen))
    return [make(model, mode, length, len(lengths) > 1, samples) for length in lengths]


def input_names(model) -> list[str]:
    """Names of a functional model's inputs."""
    return list(_named_inputs(model))


def _named_inputs(model) -> dict:
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"{type(model).__name__} has no symbolic inputs: export a functional model, or wrap the layers "
            "in one with keras.Input and keras.Model."
        )
    structure = _structure(model)
    if isinstance(structure, dict):  # the keys: flattening would sort them, and a tensor may be named otherwise
        return dict(structure)
    return {tensor.name: tensor for tensor in keras.tree.flatten(structure)}


def _as_called(model, batch: dict):
    structure = _structure(model)
    if isinstance(structure, dict):
        return {name: batch[name] for name in structure}
    return keras.tree.pack_sequence_as(structure, [batch[name] for name in input_names(model)])


def _rows_as_called(model, rows: list[dict]) -> list:
    return [_as_called(model, row) for row in rows]


def _structure(model):
    """The inputs as the model is called with them; a Sequential has no `input` before its first call."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def encode_batches(model, length: int, data) -> list[dict]:
    """Texts, (text, pair) tuples or batches as a list of batches of one with the model's inputs."""
    names = input_names(model)
    data = [data] if isinstance(data, dict) else list(data)
    if data and isinstance(data[0], dict):
        return _checked(batches(data), names, length)
    if getattr(model, "tokenizer", None) is None:
        raise ValueError("This model has no tokenizer, so samples and representative data must be batches.")
    texts = [item if isinstance(item, str) else item[0] for item in data]
    pairs = [None if isinstance(item, str) else item[1] for item in data]
    if any(pair is None for pair in pairs) and any(pair is not None for pair in pairs):
        raise ValueError("Samples are texts or (text, pair) tuples, not both.")
    encoding = model.tokenizer.encode(texts, None if not data or pairs[0] is None else pairs, sequence_length=length)
    return batches([{name: _of_encoding(encoding, name) for name in names}])


def _of_encoding(encoding, name: str) -> np.ndarray:
    """An input of an encoding; the tokens of which a vector is made are all but the first, to be seen in the check."""
    if name != POOLED_MASK:
        return getattr(encoding, name)
    return encoding.padding_mask * (np.arange(encoding.padding_mask.shape[1]) > 0)


def _checked(rows: list[dict], names: list[str], length: int | None) -> list[dict]:
    for row in rows:
        missing = [name for name in names if name not in row]
        if missing:
            raise ValueError(f"A sample batch lacks {missing}; it has {sorted(row)}, wanted are {names}.")
    rows = [{name: row[name] for name in names} for row in rows]
    if length is not None and any(row[names[0]].ndim > 1 and row[names[0]].shape[1] != length for row in rows):
        shape = rows[0][names[0]].shape
        raise ValueError(f"Sample batches are [B,{length}] for this signature, got {shape}; texts fit any length.")
    return rows


def _name(base: str, length, several: bool) -> str:
    return f"{base}_{length}" if several else base


def _task_plan(task, mode: Mode, length: int, several: bool, samples) -> Plan:
    base, per_token = TASK_SIGNATURES[task.task_name]
    names = input_names(task)

    def function(inputs):
        return name_outputs(task, task.forward(inputs, graph_form=mode.graph_form))

    def reference(batch):
        logits = keras.ops.convert_to_numpy(task(batch, training=False))
        return {"embedding" if base == "embed" else "logits": logits}

    inputs = dict.fromkeys(names, ((1, length), "int32"))
    signature = Signature(_name(base, length, several), inputs, function)
    together = 1 if base == "fill_mask" else TOGETHER  # a token's logits are as many as the vocabulary
    return Plan(signature, length, _task_samples(task, length, samples), reference, per_token, together)


def _task_samples(task, length: int, samples) -> list[dict]:
    if samples is None and task.tokenizer is None:
        return drawn_samples(task, dict.fromkeys(input_names(task), ((1, length), "int32")))
    return encode_batches(task, length, SAMPLE_TEXTS if samples is None else samples)


def equalized(model, mode: Mode, seen: Iterable) -> Mode:
    """The mode with the equalization that the tokens of samples, run in Keras, ask for.

    As it is where weights of 4 bits are carried over (`quantization.carried`): scaled, they would have more.
    """
    if mode.name == "int4_block32" and carried.of_four_bits(model):
        return mode
    observer = Observer()
    with written(replace(mode.graph_form, equalization=observer)):
        for batch in seen:
            observer.mask = batch.get("padding_mask") if isinstance(batch, dict) else None
            model(keras.tree.map_structure(keras.ops.convert_to_tensor, batch))
    return replace(mode, graph_form=replace(mode.graph_form, equalization=observer.equalization()))


def with_outliers_apart(model, mode: Mode, length: int | None, data) -> Mode:
    """The mode with the outlier channels that representative data, run in Keras, asks to be computed apart."""
    if not has_backbone(model) or _has_twins(model):
        return mode
    rows = encode_batches(model, length, data)
    rows = _rows_as_called(model, in_groups(rows, TOGETHER) if is_task(model) else rows)
    return replace(mode, graph_form=observing.with_outliers_apart(model, rows, mode.graph_form))


def with_float_layers(model, mode: Mode, length: int | None, data, layers) -> Mode:
    """The mode with layers that stay float: a number of the most sensitive parts on representative data, or paths."""
    if not isinstance(layers, int):
        unknown = sorted(set(layers) - {layer.path for layer in model._flatten_layers()})
        if unknown:
            raise ValueError(
                f"float_layers: the model has no layer {unknown[0]!r}. Name layers by layer.path, such as "
                "'encoder_block_0/feed_forward/output', or give a number: the most sensitive ones."
            )
        return replace(mode, float_layers=tuple(layers))
    if not has_backbone(model) or _has_twins(model):
        raise ValueError(f"float_layers={layers}: only layers of tfxformer are measured; name those of {model.name!r}.")
    rows = _rows_as_called(model, encode_batches(model, length, data)[:MOST_ROWS])
    return replace(mode, float_layers=sensitivity.worst_parts(model, rows, mode.graph_form, layers))


def name_outputs(task, logits) -> dict:
    """A task's logits as the named outputs of its signature."""
    problem_type = getattr(task, "problem_type", None)  # only text classification has several
    if task.task_name == "text-embedding":
        return {"embedding": logits}
    if task.task_name in ("question-answering", "masked-lm") or problem_type == "regression":
        return {"logits": logits}
    multi_label = problem_type == "multi_label_classification"
    probabilities = keras.ops.sigmoid(logits) if multi_label else keras.ops.softmax(logits)
    return {"probabilities": probabilities, "logits": logits}


def _plain_plan(model, mode: Mode, length: int | None, several: bool, samples) -> Plan:
    inputs = {}
    for name, tensor in _named_inputs(model).items():
        shape = tuple(size if size is not None else length for size in tensor.shape[1:])
        if None in shape:
            raise ValueError(f"Input {name!r} is {tensor.shape}: pass sequence_length=... to fix its free size.")
        inputs[name] = ((1, *shape), tensor.dtype)

    def call(batch):
        return _plain_outputs(model, model(_as_called(model, batch), training=False))

    def function(batch):  # what of ours is in it computes in the writing that the mode wants
        with written(mode.graph_form):
            return call(batch)

    def reference(batch):
        return {name: keras.ops.convert_to_numpy(value) for name, value in call(batch).items()}

    signature = Signature(_name(PLAIN_SIGNATURE, length, several), inputs, function)
    if samples is None:
        data = drawn_samples(model, inputs)
    else:
        rows = batches([samples] if isinstance(samples, dict) else list(samples))
        data = _checked(rows, list(inputs), length)
    return Plan(signature, length, data, reference)


def _plain_outputs(model, outputs) -> dict:
    if isinstance(outputs, dict):
        return outputs
    values = keras.tree.flatten(outputs)
    return dict(zip(model.output_names, values, strict=True)) if len(values) > 1 else {"output": values[0]}


def drawn_samples(model, inputs: dict, count: int = 4, seed: int = 0) -> list[dict]:
    """Random inputs for a model without a tokenizer: ids below its largest table, padded masks."""
    generator = np.random.default_rng(seed)
    sizes = (
        (getattr(layer, "input_dim", None), getattr(layer, "vocabulary_size", None))
        for layer in model._flatten_layers()
    )
    tables = [size for pair in sizes for size in pair if isinstance(size, int)]
    rows = []
    for index in range(count):
        row = {}
        for name, (shape, dtype) in inputs.items():
            if "float" in dtype:
                row[name] = generator.normal(size=shape).astype(dtype)
            elif "mask" in name:  # the first sample is full, the others have padding
                kept = shape[-1] - index * shape[-1] // (count + 1)
                row[name] = np.broadcast_to(np.arange(shape[-1]) < kept, shape).astype(dtype)
            elif "segment" in name or "type" in name:
                row[name] = np.zeros(shape, dtype)
            else:
                row[name] = generator.integers(0, max(tables, default=2), shape).astype(dtype)
        rows.append(row)
    return rows


@contextlib.contextmanager
def float32_layers(model):
    """Lets every layer compute in float32 while the block runs; the variables stay.

    Raises:
        ValueError: if a layer is quantized by Keras, whose graphs LiteRT misreads or refuses. ExportError: if the block
            fails and the weights themselves are half precision, which is why.
    """
    layers = list(model._flatten_layers())
    quantized = [layer.name for layer in layers if getattr(layer, "quantization_mode", None)]
    if quantized:
        raise ValueError(
            f"Layers {', '.join(quantized[:5])} were quantized by Keras. Export the float model, with "
            'quantization="dynamic_int8" or another mode.'
        )
    halves = [(layer, layer.dtype_policy) for layer in layers if layer.compute_dtype not in (None, "float32")]
    try:
        for layer, _ in halves:
            layer.dtype_policy = keras.DTypePolicy("float32")
        yield
    except ExportError as error:
        half = sorted({weight.dtype for weight in model.weights if weight.dtype in ("float16", "bfloat16")})
        if not half:
            raise
        raise ExportError(
            f"The model's weights are {half[0]}, and LiteRT lacks operators for them. Load or build it with "
            f'dtype="mixed_{half[0]}", which computes in {half[0]} on float32 weights, or with dtype="float32"; '
            f'quantization="float16" makes a file of half the size. ({error})'
        ) from error
    finally:
        for layer, policy in halves:
            layer.dtype_policy = policy


def representative_stream(plans: list[Plan], model, data: Iterable) -> Callable:
    """Feeds the converter's calibration: every signature sees the representative texts at its own length."""
    fed = []
    for plan in plans:
        if is_task(model):
            rows = encode_batches(model, plan.length, data)
        else:
            rows = _checked(batches(data), list(plan.signature.inputs), plan.length)
        fed.extend((plan.signature.name, row) for row in rows)
    return lambda: iter(fed)
