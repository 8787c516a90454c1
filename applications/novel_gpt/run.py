"""A small GPT trained from scratch on novels, pruned, quantized, exported, and writing from its .tflite file.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/novel_gpt/run.py [--quick] [--text austen|bbc|FILE] [--tokenizer characters|bpe]

The dials are those of nanoGPT's CPU configuration (github.com/karpathy/nanoGPT, config/train_shakespeare_char.py and
its README): 4 layers, 4 heads, 128 wide, windows of 64 tokens, batch 12, 2,000 steps of AdamW without dropout.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np

import tfxformer
from tfxformer import compression, samples, tasks, training
from tfxformer.export import LiteRTGenerator, export_litert
from tfxformer.recipes import pipeline, plots, report
from tfxformer.recipes.folders import complete_folder
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
QUANTIZATIONS = ("float32", "dynamic_int8")


@dataclass(frozen=True)
class Settings:
    """The dials; rates are peaks after a warmup, falling along a cosine to a tenth."""

    num_layers: int = 4
    num_heads: int = 4
    hidden_size: int = 128
    context: int = 64
    batch_size: int = 12
    steps: int = 2000
    prune_steps: int = 500
    warmup: int = 100
    learning_rate: float = 1e-3
    prune_learning_rate: float = 5e-4
    weight_decay: float = 0.1
    sparsity: float = 0.5
    vocabulary_size: int = 1024  # of a learned one
    scored_characters: int = 2000  # of the held-out text, by each .tflite file, one token at a time
    written_characters: int = 600
    seed: int = 0


QUICK = replace(Settings(), steps=200, prune_steps=60, warmup=20, scored_characters=200, written_characters=200)


@dataclass(frozen=True)
class Text:
    """What is learned, and what is held out to measure it by."""

    name: str
    train: str
    held_out: str


def read_text(name: str) -> Text:
    """The novels, news out of a registry package, or a file of the user's own.

    Raises:
        ValueError: for a file that is not plain text or too short.
    """
    if name == "austen":
        *train, (_, held_out) = sorted(samples.austen_novels().items(), key=lambda novel: novel[0] == "Persuasion")
        return Text("five novels of Jane Austen, held out Persuasion", "\n".join(t for _, t in train), held_out)
    if name == "bbc":
        news = samples.bbc_topics()
        return Text("BBC news", "\n\n".join(news.train_texts), "\n\n".join(news.test_texts))
    try:
        text = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not plain text in UTF-8: {error}.") from error
    if len(text) < 10_000:
        raise ValueError(f"{name} has {len(text)} characters; a model from scratch wants 10,000 at least.")
    border = int(0.9 * len(text))
    return Text(Path(name).name, text[:border], text[border:])


def make_model(text: Text, kind: str, settings: Settings) -> tasks.CausalLM:
    """A GPT-2 of nanoGPT's size with random weights."""
    keras.utils.set_random_seed(settings.seed)
    if kind == "characters":
        tokenizer = Tokenizer.characters(text.train + text.held_out)
    else:
        tokenizer = Tokenizer.train_byte_level_bpe([text.train], settings.vocabulary_size)
    backbone = tfxformer.build(
        "gpt2",
        vocabulary_size=tokenizer.vocabulary_size,
        padding_id=tokenizer.padding_id,
        decoder__num_layers=settings.num_layers,
        decoder__num_heads=settings.num_heads,
        decoder__hidden_size=settings.hidden_size,
        decoder__feed_forward_size=4 * settings.hidden_size,
        decoder__max_positions=settings.context,
        decoder__activation="gelu",
        decoder__dropout=0.0,
        decoder__attention_dropout=0.0,
    )
    return tasks.CausalLM(backbone, tokenizer=tokenizer, sequence_length=settings.context)


def fit(model, ids, held_out, settings: Settings, steps: int, rate: float, seed: int, verbose, callbacks=()) -> dict:
    """Trains on windows that begin anywhere; the history, with the held-out loss ten times on the way."""
    parts = min(10, steps)
    schedule = training.WarmupCosine(rate, steps, warmup=min(settings.warmup, steps // 10), floor=rate / 10)
    optimizer = training.AdamW(schedule, settings.weight_decay, beta_2=0.99, global_clipnorm=1.0)
    model.compile(optimizer, steps_per_execution=max(1, steps // parts // 10))
    inputs, targets = model.windows(ids, settings.batch_size * steps, seed=seed)
    history = model.fit(
        inputs,
        targets,
        batch_size=settings.batch_size,
        epochs=parts,
        steps_per_epoch=steps // parts,
        shuffle=False,
        validation_data=model.windows(held_out, 240, seed=0),
        callbacks=list(callbacks),
        verbose=verbose,
    )
    return pipeline.numbers(history)


def nats_per_character(model, ids, characters: int) -> float:
    """The mean negative log-likelihood of a text: its tokens' in windows of the model's context, over characters."""
    loss = model.evaluate(ids, batch_size=64, return_dict=True, verbose=0)["loss"]
    return loss * (len(ids) - 1) / characters


class Writer:
    """A .tflite file of a model with a short context: when the cache is full, its second half begins the next one."""

    def __init__(self, path: Path, context: int):
        self.generator, self.context = LiteRTGenerator(path), context

    def next_logits(self, ids: list[int]) -> np.ndarray:
        """The logits of what follows `ids`; fast where `ids` are those of the last call and one more."""
        return self.generator.next_logits(ids[-self._kept(len(ids)) :])

    def _kept(self, count: int) -> int:
        half = self.context // 2
        return count if count <= self.context else half + (count - half) % half + 0

    def score(self, ids) -> float:
        """Mean negative log-likelihood of each id but the first, in nats."""
        losses = []
        for end in range(1, len(ids)):
            logits = self.next_logits(list(ids[:end])).astype(np.float64)
            losses.append(np.logaddexp.reduce(logits) - logits[ids[end]])
        return float(np.mean(losses))

    def write(self, ids: list[int], count: int, temperature: float, seed: int) -> list[int]:
        """`count` more ids, drawn by chance."""
        generator, ids = np.random.default_rng(seed), list(ids)
        for _ in range(count):
            # The largest of logits and Gumbel noise is a draw by their softmax.
            ids.append(int((self.next_logits(ids) / temperature + generator.gumbel(size=len(ids) and None)).argmax()))
        return ids
