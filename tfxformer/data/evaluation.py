"""The scores of a model on labelled texts: one set of formulas for Keras tasks and LiteRT files.

Shape letters: B texts, C labels.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tfxformer.data.files.rows import WRITES_TARGETS
from tfxformer.data.targets.labels import encode_labels
from tfxformer.data.targets.spans import answer_spans
from tfxformer.data.targets.words.labels import entity_scores
from tfxformer.data.text_scores import TEXT_SCORES, text_scores

# Tasks that learn from texts alone, and are scored by their own `evaluate`.
OF_TOKENS = {
    "masked-lm": "masked_accuracy",
    "permutation-lm": "masked_accuracy",
    "replaced-token-detection": "discriminator_accuracy",
    "causal-lm": "perplexity",
}
# The one score that a table shows, by task; problem types of classification have their own.
MAIN_SCORE = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro_f1",
    "regression": "pearson",
    "token-classification": "f1",
    "question-answering": "f1",
    "text-embedding": "spearman",
    WRITES_TARGETS: "chrf",
    **OF_TOKENS,
}


def task_name(model) -> str:
    """The task of a Keras task or a LiteRT file."""
    stated = getattr(model, "task_name", None) or getattr(model, "task", None)
    return stated or (WRITES_TARGETS if getattr(model, "source_lengths", ()) else "causal-lm")  # a LiteRTGenerator


def main_score(model) -> str:
    """The name of the score that says most about a model."""
    name = task_name(model)
    return MAIN_SCORE[model.problem_type if name == "text-classification" else name]


def predict(model, texts: Sequence, batch_size: int = 32):
    """`model.predict(texts)` of a Keras task (in batches, silently) or a LiteRT file (one by one)."""
    if hasattr(model, "task_name"):
        return model.predict(texts, batch_size=batch_size, verbose=0)
    return model.predict(texts)


def scores(model, texts: Sequence, labels: Sequence, batch_size: int = 32) -> dict:
    """Scores of a model on texts.

    Args:
        model: one of `tfxformer.tasks`, an `export.LiteRTModel`, or an `export.LiteRTGenerator` with an encoder.
        texts, labels: as the task's `fit` takes them: labels stay None for language models, and of sources they are
            the targets.
        batch_size: int, of Keras tasks.

    Returns:
        dict of float by name, all in [0, 1] but errors, correlations, losses and perplexity, and BLEU and chrF, which
        go to 100; see `MAIN_SCORE`. Targets are written as `generate` does by itself; see `text_scores`.

    Raises:
        ValueError: for a file that cannot be scored, or labels that the model does not have.
        ModuleNotFoundError: to score written texts without the extra [metrics].
    """
    name = task_name(model)
    if name in OF_TOKENS:
        if not hasattr(model, "task_name"):
            raise ValueError(f"{model.path} is a language model; only a Keras model can be scored on tokens.")
        found = model.evaluate(texts, batch_size=batch_size, verbose=0, return_dict=True)
        return {key: float(value) for key, value in found.items()}
    if name == WRITES_TARGETS:
        return target_scores(model, texts, labels, batch_size)
    if name == "text-embedding":
        return similarity_scores(model, texts, labels, batch_size)
    predictions = predict(model, texts, batch_size)
    if name == "token-classification":
        return entity_scores(labels, predictions)
    if name == "question-answering":
        contexts = [context for _, context in texts]
        spans = answer_spans(labels, contexts)
        wanted = [context[max(start, 0) : max(end, 0)] for context, (start, end) in zip(contexts, spans, strict=True)]
        return answer_scores([row[0].text if row else "" for row in predictions], wanted)
    return class_scores(predictions, encode_labels(labels, model.labels, model.problem_type), model.problem_type)


def class_scores(predictions: np.ndarray, targets: np.ndarray, problem_type: str) -> dict:
    """Scores of probabilities [B, C] against ids [B] or soft labels [B, C], 0/1 rows [B, C], or scores [B, C]."""
    if problem_type == "regression":
        return {
            "pearson": _correlation(predictions.ravel(), targets.ravel()),
            "mean_absolute_error": float(np.abs(predictions - targets).mean()),
        }
    if problem_type == "multi_label_classification":
        chosen, wanted = predictions > 0.5, targets > 0.5
        return {
            "micro_f1": _f1(chosen.sum(), wanted.sum(), (chosen & wanted).sum()),
            "exact_match": float((chosen == wanted).all(axis=1).mean()),
        }
    chosen = predictions.argmax(axis=-1)
    targets = targets.argmax(axis=-1) if targets.ndim == 2 else targets  # soft labels
    by_label = [
        _f1((chosen == i).sum(), (targets == i).sum(), ((chosen == i) & (targets == i)).sum())
        for i in np.unique(targets)
    ]
    return {"accuracy": float((chosen == targets).mean()), "macro_f1": float(np.mean(by_label))}


def target_scores(model, sources: Sequence[str], targets: Sequence[str], batch_size: int = 32) -> dict:
    """All `text_scores` of what a model writes for sources; of a Keras task, loss and perplexity too."""
    if hasattr(model, "task_name"):
        found = model.evaluate(sources, targets, batch_size, metrics=TEXT_SCORES, return_dict=True, verbose=0)
        return {key: float(value) for key, value in found.items()}
    return text_scores(model.generate(list(sources)), targets)


def similarity_scores(model, pairs: Sequence, similarities: Sequence[float], batch_size: int = 32) -> dict:
    """Correlations of the cosines of embedded pairs with wanted similarities."""
    first, second = (np.asarray(predict(model, [pair[side] for pair in pairs], batch_size)) for side in (0, 1))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(axis=1) / np.maximum(lengths, 1e-12)
    wanted = np.asarray(similarities, np.float64)
    return {
        "spearman": _correlation(_ranks(cosines), _ranks(wanted)),
        "pearson": _correlation(cosines, wanted),
    }


def answer_scores(answers: Sequence[str], references: Sequence[str]) -> dict:
    """SQuAD's exact match and word F1 (Rajpurkar et al., 2016, arXiv:1606.05250); "" is "no answer"."""
    exact, overlap = [], []
    for answer, reference in zip(answers, references, strict=True):
        found, wanted = _words(answer), _words(reference)
        exact.append(found == wanted)
        common = sum((Counter(found) & Counter(wanted)).values())
        overlap.append(_f1(len(found), len(wanted), common) if found or wanted else 1.0)
    return {"f1": float(np.mean(overlap)), "exact_match": float(np.mean(exact))}


def _words(text: str) -> list[str]:
    """SQuAD's normal form: lower case, without punctuation and articles."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f1(found, wanted, common) -> float:
    return float(2 * common / (found + wanted)) if found + wanted else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[places]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side never changes."""
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size else 0.0
