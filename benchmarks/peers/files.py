"""Writes one text classifier (MiniLM-L6 and a head for two labels) as the file that each runtime wants.

Each file comes from its runtime's own tools by their documented route, and stands for two models: the
classifier (logits) and the plain encoder (the last layer's output at every token).
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np

MODELS = {"classifier": "logits", "encoder": "sequence_output"}
BATCHES = (1, 32)
LABELS = ["other", "sports"]
CALIBRATION_TEXTS = 300  # NNCF's own default
RIDGE = 1.0
TORCH_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUR_INPUTS = ("token_ids", "padding_mask", "segment_ids")


def length(folder) -> int:
    """The tokens of each text of a folder of files."""
    return np.load(Path(folder) / "ids.npy", mmap_mode="r").shape[1]


def inputs(folder, rows, names, dtype) -> dict:
    """The token ids of `rows` (all texts fill the length), with mask and segments, under a runtime's names."""
    ids = np.load(Path(folder) / "ids.npy")[rows].astype(dtype)
    return dict(zip(names, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))


def write_checkpoint(folder, length):
    """The checkpoint with its head, ids of texts of `length` tokens, and what every runtime is compared with."""
    import torch
    import transformers

    from tfxformer import samples
    from tfxformer.text import Tokenizer

    folder, source = Path(folder), samples.minilm()
    split = samples.bbc_topics()
    encoding = Tokenizer.from_pretrained(source).encode(split.train_texts, sequence_length=length)
    full = encoding.padding_mask.sum(axis=1) == length
    np.save(folder / "ids.npy", encoding.token_ids[full][: max(BATCHES) + CALIBRATION_TEXTS])

    model = transformers.BertForSequenceClassification.from_pretrained(source, num_labels=2).eval()
    batch = inputs(folder, slice(None), TORCH_INPUTS, "int64")
    batch = {name: torch.from_numpy(array) for name, array in batch.items()}
    with torch.inference_mode():
        pooled = model.bert(**batch).pooler_output.double()
        fit_head(model.classifier, pooled, np.array(split.train_labels)[full][: len(pooled)] == LABELS[1])
        first = {name: array[: max(BATCHES)] for name, array in batch.items()}
        reference = {
            "logits": model(**first).logits.numpy(),
            "sequence_output": model.bert(**first).last_hidden_state.numpy(),
        }
    np.savez(folder / "reference.npz", **reference)
    model.save_pretrained(folder / "checkpoint")
    model.bert.save_pretrained(folder / "backbone")
    for file in [*source.glob("*token*"), *source.glob("vocab.txt")]:
        shutil.copy(file, folder / "checkpoint")


def fit_head(layer, pooled, is_sport):
    """Ridge regression of the topic: the logits of an untrained head are noise, in which int8 errors look large."""
    import torch

    target = torch.from_numpy(np.where(is_sport, 1.0, -1.0))
    mean = pooled.mean(0)
    centred = pooled - mean
    weight = torch.linalg.solve(
        centred.T @ centred + RIDGE * torch.eye(len(mean), dtype=torch.float64), centred.T @ target
    )
    bias = target.mean() - mean @ weight
    layer.weight.copy_(torch.stack([-weight, weight]))
    layer.bias.copy_(torch.stack([-bias, bias]))


def write_litert(folder):
    """Ours: the classifier's file for batch 1 by `export_litert`; other shapes and outputs by its converter."""
    from tfxformer import export, tasks
    from tfxformer.export import convert
    from tfxformer.export.quantization import quantize

    folder, tokens = Path(folder), length(folder)
    task = tasks.TextClassifier.from_pretrained(folder / "checkpoint", labels=LABELS)
    for name in ("float32", "dynamic_int8"):
        export.export_litert(task, folder / f"classifier-1-{name}.tflite", name, sequence_length=tokens)
        graph_form = quantize.mode(name).graph_form

        def classify(batch, graph_form=graph_form):
            return {"logits": task.forward(batch, graph_form)}

        def encode(batch, graph_form=graph_form):
            return {"sequence_output": task.backbone.forward(batch, graph_form)["sequence_output"]}

        for model, batch, function in (
            ("classifier", max(BATCHES), classify),
            ("encoder", min(BATCHES), encode),
            ("encoder", max(BATCHES), encode),
        ):
            shapes = dict.fromkeys(OUR_INPUTS, ((batch, tokens), "int32"))
            converted = convert.convert([convert.Signature(model, shapes, function)], quantize.mode(name))
            (folder / f"{model}-{batch}-{name}.tflite").write_bytes(converted.content)


def torch_models(folder):
    """(name, torch module with one output, example inputs); "eager" attention is what both exporters fuse best."""
    import torch
    import transformers

    class Encoder(torch.nn.Module):
        def __init__(self, bert):
            super().__init__()
            self.bert = bert

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    class Classifier(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).logits

    model = transformers.BertForSequenceClassification.from_pretrained(
        Path(folder) / "checkpoint", attn_implementation="eager"
    ).eval()
    example = inputs(folder, slice(0, 2), TORCH_INPUTS, "int64")
    example = {name: torch.from_numpy(array) for name, array in example.items()}
    return [("classifier", Classifier(model), example), ("encoder", Encoder(model.bert), example)]


def write_onnx(folder):
    """ONNX by torch's exporter; int8 by onnxruntime's dynamic quantization (int8 weights, a scale per channel).

    Measured with onnxruntime 1.31 on a processor with VNNI: one scale per matrix is as fast and twice as wrong
    (0.30 against 0.13 on the encoder), uint8 weights are slower, its offline transformer optimizer adds nothing.
    """
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = Path(folder)
    for name, module, example in torch_models(folder):
        path = folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, on values it takes for constant
            torch.onnx.export(
                module,
                tuple(example.values()),
                str(path),
                input_names=list(example),
                output_names=[MODELS[name]],
                dynamic_axes={key: {0: "batch"} for key in (*example, MODELS[name])},
                opset_version=18,
                dynamo=False,  # quantize_dynamic 1.31 refuses what the other exporter writes
            )
        quantized = folder / f"{name}-int8.onnx"
        quantize_dynamic(str(path), str(quantized), weight_type=QuantType.QInt8, per_channel=True)


def write_openvino(folder):
    """OpenVINO models from torch; int8 by NNCF, calibrated on texts, with its settings for transformers."""
    import nncf
    import openvino

    folder = Path(folder)
    rows = [slice(i, i + 1) for i in range(max(BATCHES), max(BATCHES) + CALIBRATION_TEXTS)]
    calibration = nncf.Dataset([inputs(folder, row, TORCH_INPUTS, "int64") for row in rows])
    for name, module, example in torch_models(folder):
        shapes = [(key, [-1, length(folder)]) for key in example]
        model = openvino.convert_model(module, example_input=example, input=shapes)
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
        quantized = nncf.quantize(
            model, calibration, model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION_TEXTS
        )
        openvino.save_model(quantized, folder / f"{name}-int8.xml", compress_to_fp16=False)


WRITERS = {writer.__name__: writer for writer in (write_litert, write_onnx, write_openvino)}  # of a checkpoint


def sizes(folder) -> dict:
    """Bytes of each model's files by name."""
    return {
        path.name: path.stat().st_size
        for path in sorted(Path(folder).iterdir())
        if path.suffix in (".tflite", ".onnx", ".bin")
    }


def write_error(folder, peer: str, error: float) -> None:
    """Keeps a peer's distance from torch for the process that reports it."""
    (Path(folder) / f"{peer}.error.json").write_text(json.dumps(error))


def read_error(folder, peer: str) -> float:
    """What `write_error` kept."""
    return json.loads((Path(folder) / f"{peer}.error.json").read_text())
