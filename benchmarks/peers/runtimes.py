"""The runtimes, each with its documented best settings here; every one must give torch's outputs first.

A runtime is a function (folder, model, batch, threads) -> step, and a step returns the output as an array.
Threads that wait in a loop for the next call (onnxruntime, XNNPACK, OpenMP) stop doing so some milliseconds
after the last one: a small part of a turn of the next runtime, which lasts a third of a second and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peers import files


def _litert(folder, model, batch, threads, quantization):
    from ai_edge_litert.interpreter import Interpreter

    from tfxformer.runtime.quiet import quiet

    path = Path(folder) / f"{model}-{batch}-{quantization}.tflite"
    feed = files.inputs(folder, slice(0, batch), files.OUR_INPUTS, "int32")
    with quiet():
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        (name,) = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(name)
        outputs = runner(**feed)
    output = "probabilities" if "probabilities" in outputs else files.MODELS[model]

    def step():
        # The signature runner is what LiteRTModel uses; CompiledModel with buffers kept took the same time.
        return runner(**feed)[output]

    return step


def _litert_rows(folder, model, batch, threads, quantization):
    """A batch as `LiteRTModel.predict` answers it: text by text, on the file for one, in interpreters side by side."""
    from tfxformer.runtime import interpreters, model_file

    if batch == 1:
        return _litert(folder, model, 1, threads, quantization)
    interpreters.thread_count = lambda asked: asked or threads  # in place of the machine's cores
    file = model_file.open_file(Path(folder) / f"{model}-1-{quantization}.tflite")
    (name,) = file.signatures
    feeds = [files.inputs(folder, slice(row, row + 1), files.OUR_INPUTS, "int32") for row in range(batch)]
    running, calls = interpreters.Interpreters(file, None), [lambda feed=feed: (name, feed) for feed in feeds]
    (output,) = {"probabilities", files.MODELS[model]} & {tensor.name for tensor in file.signatures[name].outputs}
    return lambda: np.concatenate([outputs[output] for outputs in running.run_each(calls)])


def litert_float32(folder, model, batch, threads):
    return _litert_rows(folder, model, batch, threads, "float32")


def litert_int8(folder, model, batch, threads):
    return _litert_rows(folder, model, batch, threads, "dynamic_int8")


def litert_int8_batch(folder, model, batch, threads):
    return _litert(folder, model, batch, threads, "dynamic_int8")


def torch_float32(folder, model, batch, threads):
    import torch
    import transformers

    torch.set_num_threads(threads)
    feed = files.inputs(folder, slice(0, batch), files.TORCH_INPUTS, "int64")
    feed = {name: torch.from_numpy(array) for name, array in feed.items()}
    classifier = transformers.BertForSequenceClassification.from_pretrained(Path(folder) / "checkpoint").eval()

    @torch.inference_mode()
    def step():
        if model == "classifier":
            return classifier(**feed).logits.numpy()
        return classifier.bert(**feed).last_hidden_state.numpy()

    return step


def _onnxruntime(path, folder, batch, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()  # all graph optimizations are on
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("batch", batch)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = files.inputs(folder, slice(0, batch), files.TORCH_INPUTS, "int64")
    return lambda: session.run(None, feed)[0]


def onnxruntime_float32(folder, model, batch, threads):
    return _onnxruntime(Path(folder) / f"{model}.onnx", folder, batch, threads)


def onnxruntime_int8(folder, model, batch, threads):
    return _onnxruntime(Path(folder) / f"{model}-int8.onnx", folder, batch, threads)


def _openvino(path, folder, batch, threads):
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    network.reshape({name: [batch, files.length(folder)] for name in files.TORCH_INPUTS})
    compiled = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    feed = files.inputs(folder, slice(0, batch), files.TORCH_INPUTS, "int64")
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True)[0]


def openvino_default(folder, model, batch, threads):
    return _openvino(Path(folder) / f"{model}.xml", folder, batch, threads)


def openvino_int8(folder, model, batch, threads):
    return _openvino(Path(folder) / f"{model}-int8.xml", folder, batch, threads)


def openvino_int8_streams(folder, model, batch, threads):
    """Its throughput mode: a stream for each thread, a request for each text."""
    import openvino

    core = openvino.Core()
    network = core.read_model(Path(folder) / f"{model}-int8.xml")
    network.reshape({name: [1, files.length(folder)] for name in files.TORCH_INPUTS})
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    queue = openvino.AsyncInferQueue(core.compile_model(network, "CPU", settings), 2 * threads)
    feeds = [files.inputs(folder, slice(row, row + 1), files.TORCH_INPUTS, "int64") for row in range(batch)]
    found = [None] * batch

    def keep(request, row):
        found[row] = request.get_output_tensor(0).data.copy()

    queue.set_callback(keep)

    def step():
        for row, feed in enumerate(feeds):
            queue.start_async(feed, row, share_inputs=True)
        queue.wait_all()
        return np.concatenate(found)

    return step


def keras_hub_graph(folder, model, batch, threads):
    import keras_hub
    import tensorflow as tf
    from safetensors.numpy import load_file

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    backbone = keras_hub.models.BertBackbone.from_preset(str(Path(folder) / "backbone"))
    network = backbone
    if model == "classifier":
        network = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
        head = load_file(Path(folder) / "checkpoint" / "model.safetensors")
        network.output_dense.kernel.assign(head["classifier.weight"].T)
        network.output_dense.bias.assign(head["classifier.bias"])
    feed = files.inputs(folder, slice(0, batch), files.OUR_INPUTS, "int32")
    feed = {name: tf.constant(array) for name, array in feed.items()}
    graph = tf.function(lambda batch: network(batch, training=False))

    def step():
        outputs = graph(feed)
        return (outputs if model == "classifier" else outputs["sequence_output"]).numpy()

    return step


@dataclass(frozen=True)
class Runtime:
    """A runtime, the largest relative error (L2, against torch) with which it may take part, and whether it differs
    from another one in batches alone."""

    prepare: object
    tolerance: float
    batches_only: bool = False


OURS = "tfxformer int8"
RUNTIMES = {
    OURS: Runtime(litert_int8, 0.2),
    "tfxformer float32": Runtime(litert_float32, 1e-4),
    "tfxformer int8, one batch": Runtime(litert_int8_batch, 0.2, batches_only=True),
    "onnxruntime int8": Runtime(onnxruntime_int8, 0.2),
    "onnxruntime float32": Runtime(onnxruntime_float32, 1e-4),
    "openvino int8": Runtime(openvino_int8, 0.2),
    "openvino int8, streams": Runtime(openvino_int8_streams, 0.2, batches_only=True),
    "openvino default": Runtime(openvino_default, 3e-2),  # bfloat16 where the processor has it
    "keras-hub float32": Runtime(keras_hub_graph, 3e-2),  # tanh GELU where the checkpoint has erf
    "torch float32": Runtime(torch_float32, 1e-4),
}


@dataclass(frozen=True)
class Peer:
    """One runtime on one model and batch size, ready to be sent to a process of its own."""

    runtime: str
    folder: str
    model: str
    batch: int
    threads: int

    @property
    def __name__(self):
        return self.runtime

    def __call__(self):
        runtime = RUNTIMES[self.runtime]
        step = runtime.prepare(self.folder, self.model, self.batch, self.threads)
        error = self.error(np.asarray(step()))
        if not error <= runtime.tolerance:
            raise ValueError(
                f"{self.runtime}, {self.model}, batch {self.batch}: relative error {error:.2e} against torch, "
                f"allowed {runtime.tolerance:g}. Its time would mean nothing."
            )
        files.write_error(self.folder, self.runtime, error)
        return step

    def error(self, output) -> float:
        """Relative L2 distance from torch's float32 output; of classifiers, from its log odds."""
        name = files.MODELS[self.model]
        wanted = np.load(Path(self.folder) / "reference.npz")[name][: self.batch].astype("float64")
        if self.model == "classifier":
            output, wanted = log_odds(output), log_odds(wanted)
        return float(np.linalg.norm(output - wanted) / np.linalg.norm(wanted))


def log_odds(output):
    """Logits or probabilities [B, 2], which one sees by their sum (the head's logits sum to 0) -> [B]."""
    output = np.asarray(output, "float64")
    logits = np.log(output) if np.allclose(output.sum(-1), 1.0, atol=1e-3) else output
    return logits[:, 1] - logits[:, 0]
