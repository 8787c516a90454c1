"""T5-small's shape under several runtimes: a source read, and a target written behind it.

A runtime is a function of a case that prepares everything and returns `write(count)`, which reads the source anew and
writes `count` greedy tokens, never ending early; batch 1, each with the documented settings of one user here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peers import onnx_t5


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        folder: str, where `seq2seq.write_files` has put the models.
        source: tuple of int, token ids.
        new_tokens: int, tokens of a whole target.
        threads: int.
    """

    folder: str
    source: tuple[int, ...]
    new_tokens: int
    threads: int


def litert(case: Case, quantization: str):
    """Our file through `export.LiteRTGenerator`, its cache updated in place."""
    from tfxformer.export import LiteRTGenerator

    generator = LiteRTGenerator(Path(case.folder) / f"{quantization}.tflite", num_threads=case.threads)
    steps = generator.steps()

    def write(count):
        steps.position = 0  # what the cache holds is written again
        steps.encode(list(case.source))
        tokens = [0]
        for _ in range(count):
            tokens.append(int(steps.decode(tokens[-1]).argmax()))
        return tokens[1:]

    return write


def keras(case: Case):
    """Our model in Keras, its loop compiled by XLA."""
    import tensorflow as tf

    from tfxformer import generation, tasks

    tf.config.threading.set_intra_op_parallelism_threads(case.threads)
    model = tasks.Seq2SeqLM.from_pretrained(Path(case.folder) / "checkpoint")
    ids = np.array([case.source], "int32")
    source = {"encoder_token_ids": ids, "encoder_padding_mask": np.ones_like(ids)}

    def write(count):
        # One cache, so one compiled loop, for both counts.
        return generation.generate(model, [[0]], count, source=source, cache_length=case.new_tokens + 1)[0]

    return write


def torch(case: Case):
    """transformers' T5 on torch in float32, by its own `generate`."""
    import torch
    import transformers

    torch.set_num_threads(case.threads)
    model = transformers.T5ForConditionalGeneration.from_pretrained(Path(case.folder) / "checkpoint").eval()
    ids = torch.tensor([case.source])

    def write(count):
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), min_new_tokens=count, max_new_tokens=count, do_sample=False
            )
        return found[0, 1:].tolist()

    return write


def ctranslate2(case: Case, compute_type: str):
    """CTranslate2's own format of the same weights, greedy."""
    import ctranslate2
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(Path(case.folder) / "checkpoint")
    translator = ctranslate2.Translator(
        str(Path(case.folder) / "ctranslate2"), compute_type=compute_type, inter_threads=1, intra_threads=case.threads
    )
    source = tokenizer.convert_ids_to_tokens(list(case.source))

    def write(count):
        found = translator.translate_batch(
            [source], beam_size=1, min_decoding_length=count, max_decoding_length=count, max_input_length=0
        )
        return tokenizer.convert_tokens_to_ids(found[0].hypotheses[0])

    return write


def onnxruntime(case: Case, mode: str):
    """torch's export of the same weights under ONNX Runtime, its int8 files by dynamic quantization."""
    return onnx_t5.writer(case.folder, mode, case.source, case.threads)


MODES = {"tfxformer int8": "dynamic_int8", "tfxformer float32 file": "float32"}  # of our files
RUNTIMES = {
    **{name: functools.partial(litert, quantization=mode) for name, mode in MODES.items()},
    "tfxformer Keras, XLA": keras,
    "CTranslate2 int8": functools.partial(ctranslate2, compute_type="int8"),
    "CTranslate2 float32": functools.partial(ctranslate2, compute_type="float32"),
    **{f"ONNX Runtime {mode}": functools.partial(onnxruntime, mode=mode) for mode in ("int8", "float32")},
    "torch float32": torch,
}
OURS = "tfxformer int8"


class Peer:
    """A runtime as `harness.race` starts it, writing `count` tokens behind the source."""

    def __init__(self, name: str, case: Case, count: int):
        self.__name__, self.name, self.case, self.count = name, name, case, count

    def __call__(self):
        write = RUNTIMES[self.name](self.case)
        if len(found := write(self.count)) != self.count:
            raise RuntimeError(f"{self.name} writes {len(found)} tokens of {self.count}.")
        return functools.partial(write, self.count)
