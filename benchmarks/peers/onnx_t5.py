"""T5 for ONNX Runtime: two graphs by torch's exporter, of the encoder and of a decoder's step, and their int8 copies.

The encoder reads a source of one length, all of it real, and gives each layer's cross keys and values; the decoder
reads a token, the keys and values so far, which grow by one, and those of the source. Of T5's relative positions the
graphs have tables.

Shape letters: S tokens of a source, T tokens so far, N heads, H head width, V vocabulary.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np

START = 0  # what T5's decoder begins with
GRAPHS = ("encoder", "decoder")
LAST = ("decoder", "int8")  # the file that is written last


def path_of(folder, graph: str, mode: str) -> Path:
    """The file of a graph."""
    return Path(folder) / f"{graph}-{mode}.onnx"


def write(checkpoint, folder, source, longest: int) -> None:
    """Writes the four files, and checks that those in float32 write what torch does.

    Args:
        checkpoint: folder of a T5.
        folder: of the files.
        source: ids of a source, as long as all sources will be.
        longest: int, tokens of a target.

    Raises:
        RuntimeError: where the tokens behind the source are others than torch's.
    """
    import torch
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = transformers.T5ForConditionalGeneration.from_pretrained(checkpoint).eval()
    modules = _modules(model, longest)
    ids, token = torch.tensor([list(source)]), torch.tensor([[START]])
    with torch.no_grad():
        cross = modules["encoder"](ids)
        past = [one[:, :, :1].clone() for one in cross]  # a tensor that came twice would be one input
        examples = {"encoder": (ids,), "decoder": (token, *past, *cross)}
    names = {
        "encoder": (["source"], _names("cross", len(cross))),
        "decoder": (
            ["token", *_names("past", len(cross)), *_names("cross", len(cross))],
            ["logits", *_names("next", len(cross))],
        ),
    }
    for graph in GRAPHS:
        inputs, outputs = names[graph]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, on values it takes for constant
            torch.onnx.export(
                modules[graph],
                examples[graph],
                str(path_of(folder, graph, "float32")),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {2: "length"} for name in (*inputs, *outputs) if name[:4] in ("past", "next")},
                opset_version=18,
                dynamo=False,  # quantize_dynamic 1.31 refuses what the other exporter writes
            )
        # The settings that were best of MiniLM (`files.write_onnx`).
        quantize_dynamic(
            str(path_of(folder, graph, "float32")),
            str(path_of(folder, graph, "int8")),
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    wanted = _written_by_torch(model, ids, longest)
    found = writer(folder, "float32", source, 1)(longest)
    if found != wanted:
        raise RuntimeError(f"ONNX Runtime writes {found} in float32, torch {wanted}: it is another model.")


def writer(folder, mode: str, source, threads: int):
    """`write(count)`, which reads the source anew and writes so many greedy tokens; values stay in the runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()  # all graph optimizations are on
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    encoder, decoder = (
        onnxruntime.InferenceSession(str(path_of(folder, graph, mode)), options, providers=["CPUExecutionProvider"])
        for graph in GRAPHS
    )
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    read, written = ([one.name for one in session.get_outputs()] for session in (encoder, decoder))
    shapes = {one.name: one.shape for one in decoder.get_inputs() if one.name.startswith("past")}
    empty = {
        name: value(np.zeros([size if isinstance(size, int) else 0 for size in shape], np.float32))
        for name, shape in shapes.items()
    }
    ids = value(np.array([list(source)], np.int64))

    def write(count):
        inputs = dict(zip(read, encoder.run_with_ort_values(read, {"source": ids}), strict=True)) | empty
        tokens = [START]
        for _ in range(count):
            inputs["token"] = value(np.array([tokens[-1:]], np.int64))
            logits, *following = decoder.run_with_ort_values(written, inputs)
            tokens.append(int(logits.numpy().argmax()))
            inputs |= dict(zip(empty, following, strict=True))
        return tokens[1:]

    return write


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}_{index}" for index in range(count)]


def _written_by_torch(model, ids, count: int) -> list[int]:
    """The most likely tokens, by transformers' own forward on all that is written, without a cache."""
    import torch

    tokens = [START]
    with torch.inference_mode():
        for _ in range(count):
            logits = model(input_ids=ids, decoder_input_ids=torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
    return tokens[1:]


# ---- the graphs, on the layers of transformers' model ------------------------------------------------------------


def _modules(model, longest: int) -> dict:
    """Modules of torch for each graph: the layers are the model's, the way through them is written here."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self, run):
            super().__init__()
            self.model, self.run = model, run

        def forward(self, *inputs):
            return self.run(self.model, *inputs)

    last = torch.tensor([longest - 1])
    with torch.no_grad():  # the row of the last token holds the distances of all others
        table = model.decoder.block[0].layer[0].SelfAttention.compute_bias(1, longest, past_seen_tokens=last)
    graphs = {"encoder": Graph(_encode), "decoder": Graph(functools.partial(_step, table=table))}
    return {name: graph.eval() for name, graph in graphs.items()}  # the exporter leaves the model as the graph was


def _encode(model, ids):
    """ids [1, S] -> the cross keys and values of each layer, [1, N, S, H]."""
    x, bias = model.shared(ids), None
    for block in model.encoder.block:
        attention = block.layer[0].SelfAttention
        if bias is None:
            bias = attention.compute_bias(ids.shape[1], ids.shape[1])
        normed = block.layer[0].layer_norm(x)
        keys, values = (_heads(attention, projection(normed)) for projection in (attention.k, attention.v))
        x = x + _attend(attention, normed, keys, values, bias)
        x = _feed_forward(block, x)
    x = model.encoder.final_layer_norm(x)
    cross = [block.layer[1].EncDecAttention for block in model.decoder.block]
    return tuple(_heads(one, projection(x)) for one in cross for projection in (one.k, one.v))


def _step(model, token, *pairs, table):
    """token [1, 1], past keys and values [1, N, T, H] and cross ones -> logits [1, 1, V], those with the token."""
    past, cross = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    x, following = model.shared(token), []
    for index, block in enumerate(model.decoder.block):
        attention = block.layer[0].SelfAttention
        normed = block.layer[0].layer_norm(x)
        for projection, before in zip((attention.k, attention.v), past[2 * index : 2 * index + 2], strict=True):
            following.append(_joined(before, _heads(attention, projection(normed))))
        keys, values = following[-2:]
        x = x + _attend(attention, normed, keys, values, table[..., table.shape[-1] - keys.shape[2] :])
        normed = block.layer[1].layer_norm(x)
        x = x + _attend(block.layer[1].EncDecAttention, normed, *cross[2 * index : 2 * index + 2], 0.0)
        x = _feed_forward(block, x)
    x = model.decoder.final_layer_norm(x)
    if model.config.scale_decoder_outputs:
        x = x * model.model_dim**-0.5
    return (model.lm_head(x), *following)


def _joined(before, after):
    import torch

    return torch.cat([before, after], dim=2)


def _heads(attention, x):
    return x.view(1, -1, attention.n_heads, attention.key_value_proj_dim).transpose(1, 2)


def _attend(attention, x, keys, values, bias):
    scores = _heads(attention, attention.q(x)) @ keys.transpose(2, 3) + bias  # T5 scales no scores
    context = (scores.softmax(dim=-1) @ values).transpose(1, 2)
    return attention.o(context.reshape(1, -1, attention.inner_dim))


def _feed_forward(block, x):
    layer = block.layer[-1]
    return x + layer.DenseReluDense(layer.layer_norm(x))
