"""Scores of texts that a model wrote, beside those that were wanted: sacrebleu's and rouge-score's own figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tfxformer.extras import needs
from tfxformer.text.inputs import as_list, as_texts


def text_scores(written: Sequence[str], wanted: Sequence[str], names: str | Iterable[str] | None = None) -> dict:
    """How near written texts are to the wanted ones, one of each.

    Args:
        written, wanted: lists of str of one length.
        names: of `TEXT_SCORES`; None for all of them.

    Returns:
        dict of float by name: "bleu" and "chrf" of the whole corpus, 0 to 100 as sacrebleu has them (Post, 2018,
        arXiv:1804.08771; Popović, 2015), with its defaults, whose words are those of European languages; "rouge1",
        "rouge2" and "rougeL", 0 to 1, the mean F1 of rouge-score with stems (Lin, 2004), which reads a to z alone.

    Raises:
        ValueError: for a name that there is not, and for lists of different lengths or of none.
        ModuleNotFoundError: without the extra [metrics].
    """
    names = check_names(names)
    written, wanted = as_texts(written, "written"), as_texts(wanted, "wanted")
    if len(written) != len(wanted) or not written:
        raise ValueError(f"{len(written)} written texts but {len(wanted)} wanted ones: give one of each, and some.")
    of_words = [name for name in names if name in _ROUGE]
    found = {name: _CORPUS[name](written, wanted) for name in names if name in _CORPUS}
    found |= _rouge(written, wanted, of_words) if of_words else {}
    return {name: found[name] for name in names}


def check_names(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names of scores, once each; None for all of them.

    Raises:
        ValueError: for one that there is not.
        ModuleNotFoundError: where what computes one is not installed; said before anything is written.
    """
    names = TEXT_SCORES if names is None else [names] if isinstance(names, str) else as_list(names, "metrics")
    for name in names:
        if name not in TEXT_SCORES:
            raise ValueError(f"There is no score {name!r} of written texts; there are {', '.join(TEXT_SCORES)}.")
        needs(f"The score {name!r}", "rouge_score" if name in _ROUGE else "sacrebleu")
    return tuple(dict.fromkeys(names))


def _bleu(written: list[str], wanted: list[str]) -> float:
    import sacrebleu

    return float(sacrebleu.corpus_bleu(written, [wanted]).score)


def _chrf(written: list[str], wanted: list[str]) -> float:
    import sacrebleu

    return float(sacrebleu.corpus_chrf(written, [wanted]).score)


def _rouge(written: list[str], wanted: list[str], names: list[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(names, use_stemmer=True)
    rows = [scorer.score(target, text) for text, target in zip(written, wanted, strict=True)]
    return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in names}


_CORPUS: dict[str, Callable[[list[str], list[str]], float]] = {"bleu": _bleu, "chrf": _chrf}
_ROUGE = ("rouge1", "rouge2", "rougeL")
TEXT_SCORES = (*_CORPUS, *_ROUGE)
# What one point is of: accuracies and their like are shares, whose hundredths are points.
POINTS = dict.fromkeys(_CORPUS, 1.0)
