"""Explanations of a classifier's answers, word by word.

Shape letters: R rows, S tokens, C labels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from keras import ops

from tfxformer.data.batches import read_examples, to_batch
from tfxformer.data.lengths import round_length
from tfxformer.data.targets.entity_markers import ENTITY_MARKERS
from tfxformer.tasks.explaining.attention_maps import attention_weights, layers_with_attention
from tfxformer.tasks.explaining.integrated_gradients import Attribution, IntegratedGradients
from tfxformer.tasks.explaining.rollout import read_rows, rollout
from tfxformer.tasks.explaining.words import Explanation, word_weights
from tfxformer.text import Encoding

METHODS = ("integrated_gradients", "attention_rollout")
BASELINES = ("mask", "pad", "zeros")


def explain(task, texts: list, label, method: str, baseline, steps: int, batch_size: int) -> list[Explanation]:
    """The explanations of texts or pairs; see `tasks.TextClassifier.explain`."""
    if method not in METHODS:
        raise ValueError(f"method={method!r}; wanted one of {', '.join(METHODS)}.")
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps={steps} and batch_size={batch_size}: wanted numbers from 1 on.")
    if label is not None and label not in task.labels:
        raise ValueError(f"label={label!r} is none of the classifier's labels: {', '.join(task.labels)}.")
    if method == "attention_rollout":
        layers_with_attention(task.backbone, f"explain(method={method!r})")
        gradients = None
    else:
        gradients = IntegratedGradients(task, _scores(task.problem_type), steps, batch_size)
        baseline = _baseline(task, baseline)
    found = []
    for text, answer in zip(texts, task.predict(texts, verbose=0), strict=True):
        column = _column(task, label, answer)
        encoding = _encoding(task, text)
        batch = to_batch(encoding, task.backbone.config.token_types > 1, warn=False)  # `predict` has said it
        if gradients is None:
            attribution = _rollout(task, batch)
        else:
            attribution = _integrated(task, gradients, batch, encoding, baseline, column)
        given = (text,) if isinstance(text, str) else tuple(text)
        weights = attribution.weights[len(attribution.weights) - encoding.token_ids.shape[1] :]  # behind a prompt
        words = word_weights(given, encoding, 0, weights)
        found.append(Explanation(given, words, task.labels[column], float(answer[column]), method, *attribution[1:]))
    return found


def _column(task, label, answer: np.ndarray) -> int:
    if label is not None:
        return task.labels.index(label)
    if task.problem_type == "regression" and len(task.labels) > 1:
        raise ValueError(f"explain: say of which score, label= one of {', '.join(task.labels)}.")
    return int(answer.argmax())


def _encoding(task, text) -> Encoding:
    """A text in as few tokens as hold it, with offsets; cut where `predict` cuts it."""
    examples, tokenizer = read_examples([text]), task.tokenizer
    longest = min(task.sequence_length or task.backbone.longest_text, task.backbone.longest_text)
    counts = tokenizer.token_counts(examples.texts, examples.pairs)
    length = round_length(int(counts.max()), longest)
    found = tokenizer.encode(examples.texts, examples.pairs, sequence_length=length, return_offsets=True)
    marks = [index for index, token in enumerate(tokenizer.vocabulary()) if token in ENTITY_MARKERS]
    # Marks of entities are no words: they stay where they are, on the way of the gradients too.
    words = np.where(np.isin(found.token_ids, marks), -1, found.sequence_ids)
    return dataclasses.replace(found, sequence_ids=words)


def _rollout(task, batch: dict) -> Attribution:
    count = int((batch["padding_mask"][0] != 0).sum())
    weights = attention_weights(task.backbone, {name: array[:, :count] for name, array in batch.items()})
    shares = read_rows(task.backbone, count) @ rollout(weights)
    padded = np.concatenate([shares, np.zeros(batch["token_ids"].shape[1] - count)])
    return Attribution(padded, None, None)


def _integrated(task, gradients, batch: dict, encoding: Encoding, baseline, column: int) -> Attribution:
    replaced = encoding.sequence_ids[0] >= 0
    ids = None if baseline is None else np.where(replaced, np.int32(baseline), batch["token_ids"])
    return gradients.of(batch, ids, replaced, np.eye(len(task.labels), dtype="float32")[column])


def _baseline(task, baseline: str | None) -> int | None:
    """The token that stands for no word: its id, or None for embeddings of zeros."""
    if baseline not in (None, *BASELINES):
        raise ValueError(f"baseline={baseline!r}; wanted one of {', '.join(BASELINES)}, or None to choose.")
    tokenizer = task.tokenizer
    known = {"mask": tokenizer.mask_id, "pad": tokenizer.padding_id, "zeros": None}
    if baseline is None:
        return next((known[name] for name in ("mask", "pad") if known[name] is not None), None)
    if known[baseline] is None and baseline != "zeros":
        raise ValueError(f'baseline={baseline!r}: the tokenizer has no such token; take "zeros" or another one.')
    return known[baseline]


def _scores(problem_type: str):
    """What is explained: (logits [R, C], float32 [C] that is one at the label) -> [R]."""

    def logit(logits, label):
        return ops.sum(ops.cast(logits, "float32") * label, axis=-1)

    def log_odds(logits, label):
        logits = ops.cast(logits, "float32")
        others = ops.logsumexp(ops.where(label > 0, -1e30, logits), axis=-1)
        return logit(logits, label) - others

    return log_odds if problem_type == "single_label_classification" else logit
