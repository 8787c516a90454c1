"""What Python answers, with every step on the way: `vectors.json`, against which an app is tested.

It holds the ids that the tokenizer gives, each call of the file with its inputs and outputs, and the answers. So the
code between the tokenizer and the file can be tested on any machine, which plays the calls back, and a phone with its
own tokenizer and runtime has to come to the same answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import tokenizers

from tfxformer.data.targets.spans import Windows, best_answers, encode_windows
from tfxformer.data.targets.words.entities import split_texts
from tfxformer.runtime.apps.description import SHOWING, WRITES, generation_settings, plain_ids
from tfxformer.runtime.litert_generator import LiteRTGenerator
from tfxformer.runtime.litert_model import LiteRTModel
from tfxformer.runtime.model_file import ModelFile
from tfxformer.text.generation.stopping import Stops
from tfxformer.text.generation.streaming import Writer

ANSWERS = 3  # of each question
NEW_TOKENS, MOST_PROMPT, KEPT_LOGITS = 16, 40, 8
QUESTION = "Who wrote it?"


def vectors(file: ModelFile, facts: dict[str, Any], texts: Sequence[str], *, whole_words: bool) -> dict[str, Any]:
    """The content of `vectors.json`.

    Args:
        file: the file.
        facts: what `description.describe` says of it.
        texts: str, besides those that show the tokenizer, and one that is too long for the file.
        whole_words: whether answers begin and end with words, for a tokenizer that does not say where its tokens are.

    Raises:
        ValueError: where words have other ids alone than in their text, and `whole_words` of answers is asked for.
    """
    backend = tokenizers.Tokenizer.from_str(file.tokenizer.tokenizer_json())
    backend.no_truncation()
    backend.no_padding()
    texts = [*dict.fromkeys((*texts, *SHOWING))]
    if facts["task"] == WRITES:
        return _written(file, facts, texts, backend)
    texts.append(_long(backend, texts, facts["max_length"]))
    model = _Recorder(file.path)
    make = {
        "text-classification": _classified,
        "text-embedding": _embedded,
        "token-classification": _tagged,
        "question-answering": _answered,
    }[facts["task"]]
    read, answers = make(model, facts, texts, backend, whole_words)
    return {"pieces": read, "runs": model.runs, "answers": answers}


class _Recorder(LiteRTModel):
    """Keeps what each call reads and gives."""

    def __init__(self, path):
        super().__init__(path, num_threads=1)  # one call after the other, each by `run` of the interpreters
        self.runs: list[dict] = []
        self._run, self._interpreters.run = self._interpreters.run, self._recorded

    def _recorded(self, signature: str, inputs: dict) -> dict:
        outputs = self._run(signature, inputs)
        self.runs.append(
            {
                "signature": signature,
                "inputs": {name: np.asarray(values).ravel().tolist() for name, values in inputs.items()},
                "outputs": {name: numbers(values) for name, values in outputs.items()},
            }
        )
        return outputs


def numbers(values) -> list[float]:
    """float32 as the shortest decimals that are read as the same."""
    return [float(np.format_float_scientific(value, unique=True)) for value in np.asarray(values, np.float32).ravel()]


def _long(backend: tokenizers.Tokenizer, texts: Sequence[str], length: int) -> str:
    """A text of more tokens than the file reads at once."""
    text = " ".join(texts)
    times = length // max(1, len(plain_ids(backend, text))) + 1
    return " ".join([text] * times)


def _pieces(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> dict[str, dict]:
    """Of each text its ids and where they begin and end in it, in characters."""
    found = {text: backend.encode(text, add_special_tokens=False) for text in texts}
    return {
        text: {"ids": one.ids, "starts": [o[0] for o in one.offsets], "ends": [o[1] for o in one.offsets]}
        for text, one in found.items()
    }


def _classified(model, facts, texts, backend, _):
    long = texts[-1]
    rows = [(text, None) for text in texts] + [(texts[0], texts[1]), (long, texts[0]), (long, long)]
    answers = []
    for text, pair in rows:
        (values,) = model.predict([text if pair is None else (text, pair)])
        answers.append({"text": text, "pair": pair, "values": numbers(values)})
    return _pieces(backend, texts), answers


def _embedded(model, facts, texts, backend, _):
    names = [None, *(name for name, prompt in facts["prompts"].items() if prompt)]
    answers, read = [], []
    for text, name in [(text, None) for text in texts] + [(texts[0], name) for name in names[1:]]:
        (values,) = model.predict([text], prompt_name=name)
        prompt = facts["default_prompt"] if name is None else facts["prompts"][name]
        read += [prompt + text, *([prompt] if prompt and facts["pooled_mask"] else [])]
        answers.append({"text": text, "prompt": name, "values": numbers(values)})
    rows = np.array([row["values"] for row in answers])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for first, second in itertools.pairwise(range(len(answers))):
        answers[second]["similarity_to_the_one_before"] = float(rows[first] @ rows[second])
    return _pieces(backend, read), answers


def _tagged(model, facts, texts, backend, _):
    words = split_texts(texts).words
    labels, entities = model.predict(words), model.entities(texts)
    answers = [
        {"text": text, "words": row, "labels": names, "entities": [asdict(one) for one in found]}
        for text, row, names, found in zip(texts, words, labels, entities, strict=True)
    ]
    unique = dict.fromkeys(facts["word_prefix"] + word for row in words for word in row)
    return _pieces(backend, list(unique)), answers


def _answered(model, facts, texts, backend, whole_words):
    answers = []
    for context in texts:
        windows = encode_windows(
            model.tokenizer,
            [QUESTION],
            [context],
            sequence_length=model.sequence_length,
            segment_ids="segment_ids" in facts["inputs"],
        )
        if whole_words:
            windows = _of_words(windows, context)
        (found,) = best_answers(windows, model._token_outputs(windows.batch, "logits"), [context], n_best=ANSWERS)
        answers.append({"question": QUESTION, "context": context, "answers": [asdict(one) for one in found]})
    read = _pieces(backend, [QUESTION])
    read |= {text: word_pieces(backend, text) for text in texts} if whole_words else _pieces(backend, texts)
    return read, answers


def word_pieces(backend: tokenizers.Tokenizer, text: str) -> dict[str, list[int]]:
    """The ids of a text read word by word, and where the words of each begin and end.

    Raises:
        ValueError: if they are not those of the whole text.
    """
    (spans,) = split_texts([text]).spans
    rows = [(plain_ids(backend, text[start:end]), start, end) for start, end in spans]
    ids = [index for row, _, _ in rows for index in row]
    if ids != plain_ids(backend, text):
        raise ValueError(
            "swift-transformers does not say where the tokens of a text are, so an app for iOS reads contexts word by "
            "word, and this tokenizer gives words other ids alone than in a text. Answers come from an app for Android."
        )
    starts, ends = ([row[column] for row in rows for _ in row[0]] for column in (1, 2))
    return {"ids": ids, "starts": starts, "ends": ends}


def _of_words(windows: Windows, context: str) -> Windows:
    """Windows whose tokens stand where their words stand."""
    (spans,) = split_texts([context]).spans
    offsets = np.array(windows.offsets)
    for row, column in np.argwhere(windows.in_context):
        start, end = offsets[row, column]
        offsets[row, column] = next(span for span in spans if span[0] <= start and end <= span[1])
    return replace(windows, offsets=offsets)


class _StepRecorder(LiteRTGenerator):
    """Keeps what each call of the decoder reads and gives."""

    def __init__(self, path):
        super().__init__(path, num_threads=1)
        self.calls: list[dict] = []

    def steps(self):
        steps = super().steps()
        run = steps._run

        def recorded(signature, tokens, positions):
            logits = run(signature, tokens, positions)
            call = {"signature": signature, "tokens": tokens.ravel().tolist(), "positions": positions.tolist()}
            if logits is not None:
                best = np.sort(np.argsort(-logits, kind="stable")[:KEPT_LOGITS])
                call["logits"] = {"ids": best.tolist(), "values": numbers(logits[best])}
            self.calls.append(call)
            return logits

        steps._run = recorded
        return steps


class _Decoder:
    """The tokenizer of a text stream, which keeps what it decodes."""

    def __init__(self, tokenizer):
        self._tokenizer, self.decoded = tokenizer, {}

    def decode(self, rows, skip_special_tokens=True):
        texts = self._tokenizer.decode(rows, skip_special_tokens=skip_special_tokens)
        self.decoded |= {tuple(row): text for row, text in zip(rows, texts, strict=True)}
        return texts


def _written(file: ModelFile, facts: dict, texts: Sequence[str], backend: tokenizers.Tokenizer) -> dict[str, Any]:
    generator = _StepRecorder(file.path)
    generator.generation_config = settings = generation_settings(file)
    around, decoder, answers = facts["prompt"], _Decoder(generator.tokenizer), []
    room = min(MOST_PROMPT, facts["cache_length"] - NEW_TOKENS)
    long = _long(backend, texts, room)
    while len(plain_ids(backend, long)) > max(1, room - len(around["before"]) - len(around["after"])):
        long = long[:-1]
    prompts = [text for text in (*texts, long) if 0 < len(plain_ids(backend, text)) <= room]
    for prompt in dict.fromkeys(prompts):
        ids = [*around["before"], *plain_ids(backend, prompt), *around["after"]]
        generator.calls.clear()
        tokens = generator.generate_ids(ids, NEW_TOKENS)
        stops = Stops(tuple(facts["stop_ids"]), settings.stop_strings)
        text = "".join(Writer(decoder, ids, stops).written([token] for token in tokens))
        answer = {"prompt": prompt, "max_new_tokens": NEW_TOKENS, "tokens": tokens, "text": text}
        answers.append({**answer, "steps": list(generator.calls)})
    decoded = [{"ids": list(ids), "text": text} for ids, text in decoder.decoded.items()]
    read = _pieces(backend, [row["prompt"] for row in answers])
    return {"pieces": read, "decoded": decoded, "answers": answers}
