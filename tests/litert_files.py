"""Tiny LiteRT files that tests share, each written once in a process, for that costs seconds, and left as it is."""

import functools
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "export"))

import tiny
from export_cases import TEXTS, WORDS, backbone, perturb, vocabulary
from language_cases import causal_lm, chat_tokenizer

from tfxformer import export, tasks
from tfxformer.runtime.format import checksum
from tfxformer.text import Tokenizer

LENGTH = 16  # of the classifier's signature
CACHE, PREFILL_LENGTHS = 48, (4, 16)  # slots of the decoder, tokens of its prefills
SOURCE_LENGTHS, TARGET = (12, 40), 30  # tokens of an encoder-decoder's sources, slots of its decoder


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def task() -> tasks.TextClassifier:
    """A text classifier of one block with random values in every variable."""
    path = Path(_folder().name, "vocab.txt")
    path.write_text("\n".join(vocabulary()), encoding="utf-8")
    tokenizer = Tokenizer.from_vocabulary(path, lowercase=True)
    labels = ["negative", "neutral", "positive"]
    made = perturb(tasks.TextClassifier(backbone(encoder__num_layers=1), labels, tokenizer=tokenizer))
    made.run_eagerly = True  # a traced `predict` costs a second
    return made


@functools.cache
def exported(quantization: str, *lengths: int, calibration: str | None = None):
    """(path, report) of the file of `task()` with a signature a length; int8 is calibrated on `TEXTS`."""
    path = Path(_folder().name, f"{quantization}-{calibration}-{'-'.join(map(str, lengths))}.tflite")
    how = {"sequence_lengths": lengths} if len(lengths) > 1 else {"sequence_length": lengths[0]}
    how |= {"representative": TEXTS} if quantization == "int8" else {}
    how |= {"calibration": calibration} if calibration else {}
    return path, export.export_litert(task(), path, quantization, **how)


def classifier(quantization: str) -> Path:
    """The file of `task()` for `LENGTH` tokens."""
    return exported(quantization, LENGTH)[0]


@functools.cache
def other(signature: str):
    """(task, path, report) of another task by its signature, for 48 tokens, in float32."""
    make = {
        "embed": lambda *model: tasks.TextEmbedder(*model, tokenizer=task().tokenizer),
        "tag": lambda *model: tasks.TokenClassifier(*model, ["O", "B-X", "I-X"], tokenizer=task().tokenizer),
        "answer": lambda *model: tasks.QuestionAnswering(*model, tokenizer=task().tokenizer),
        "fill_mask": lambda *model: tasks.MaskedLM(*model, tokenizer=task().tokenizer),
    }[signature]
    made, path = perturb(make(backbone(encoder__num_layers=1))), Path(_folder().name, f"{signature}.tflite")
    made.sequence_length, made.run_eagerly = 48, True
    return made, path, export.export_litert(made, path, "float32")


@functools.cache
def embedder() -> Path:
    """The file of an embedder with two signatures, which MediaPipe does not read."""
    path = Path(_folder().name, "embed-8-48.tflite")
    export.export_litert(other("embed")[0], path, "float32", sequence_lengths=(8, 48))
    return path


@functools.cache
def language_model() -> tasks.CausalLM:
    """A decoder with random values in every variable."""
    return causal_lm(tokenizer=chat_tokenizer())


@functools.cache
def exported_decoder():
    """(path, report) of the file of `language_model()`."""
    path = Path(_folder().name, "decoder.tflite")
    return path, export.export_litert(
        language_model(), path, "float32", cache_length=CACHE, prefill_lengths=PREFILL_LENGTHS
    )


def decoder() -> Path:
    """The file of `language_model()`."""
    return exported_decoder()[0]


@functools.cache
def seq2seq_model(preset: str = "marian") -> tasks.Seq2SeqLM:
    """A small encoder-decoder with random values in every variable, so large that no two logits are close."""
    layers = {"encoder": 1, "decoder": 2}
    stacks = {f"{stack}__num_layers": count for stack, count in layers.items()}
    stacks |= {f"{stack}__max_positions": 48 for stack in layers}
    words = Tokenizer.train_byte_level_bpe(TEXTS, 300)
    # T5's head is its token table, scaled.
    backbone = tiny.backbone(preset, vocabulary_size=310, heads__tied=preset == "t5", **stacks)
    made = perturb(tasks.Seq2SeqLM(backbone, tokenizer=words), kernels=0.2)
    table = made.backbone.token_embedding.embeddings
    table.assign(np.random.default_rng(1).normal(size=table.shape))  # what is written depends on what was written
    return made


@functools.cache
def exported_seq2seq(quantization: str = "float32", preset: str = "marian"):
    """(path, report) of the file of `seq2seq_model()` for sources of `SOURCE_LENGTHS` and targets of `TARGET`."""
    path = Path(_folder().name, f"{preset}-{quantization}.tflite")
    return path, export.export_litert(
        seq2seq_model(preset), path, quantization, sequence_lengths=SOURCE_LENGTHS, cache_length=TARGET, tolerance=0.2
    )


@functools.cache
def bundle() -> Path:
    """`decoder()` as a .litertlm bundle."""
    path = Path(_folder().name, "decoder.litertlm")
    export.bundle_litertlm(decoder(), language_model().tokenizer, path)
    return path


def as_written_by_0_4_0(content: bytes) -> bytes:
    """A file of ours without its digest; JSON takes spaces in its place."""
    digest = f'"checksum": "{checksum.MARK.decode()}'.encode()
    start = content.index(digest)
    end = start + len(digest) + 64 + len('", ')
    return content[:start] + b" " * (end - start) + content[end:]


def texts(count: int, seed: int = 0) -> list[str]:
    """Random texts of 1 to 12 words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 13))) for _ in range(count)]
