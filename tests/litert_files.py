"""Tiny LiteRT files that the tests of threads and of bounds share, each written once."""

import functools
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "export"))

from export_cases import WORDS, backbone, perturb, vocabulary
from language_cases import causal_lm, chat_tokenizer

from tfxformer import export, tasks
from tfxformer.runtime.format import checksum
from tfxformer.text import Tokenizer

LENGTH = 16  # of the classifier's signature
CACHE = 48  # slots of the decoder


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def task() -> tasks.TextClassifier:
    """A text classifier with random values in every variable."""
    path = Path(_folder().name, "vocab.txt")
    path.write_text("\n".join(vocabulary()), encoding="utf-8")
    tokenizer = Tokenizer.from_vocabulary(path, lowercase=True)
    return perturb(tasks.TextClassifier(backbone(), ["negative", "neutral", "positive"], tokenizer=tokenizer))


@functools.cache
def classifier(quantization: str) -> Path:
    """The file of `task()`."""
    path = Path(_folder().name, f"{quantization}.tflite")
    export.export_litert(task(), path, quantization, sequence_length=LENGTH)
    return path


@functools.cache
def language_model() -> tasks.CausalLM:
    """A decoder with random values in every variable."""
    return causal_lm(tokenizer=chat_tokenizer())


@functools.cache
def decoder() -> Path:
    """The file of `language_model()`."""
    path = Path(_folder().name, "decoder.tflite")
    export.export_litert(language_model(), path, "float32", cache_length=CACHE, prefill_lengths=(4, 16))
    return path


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
