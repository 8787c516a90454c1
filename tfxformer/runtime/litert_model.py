"""Runs a .tflite file of ours from Python on raw text, with ai-edge-litert alone (no Keras, no TensorFlow).

Shape letters: B texts, S sequence length, C labels, D model width.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from tfxformer.arguments import keywords
from tfxformer.data.batches import read_examples, to_batch
from tfxformer.data.prompts import POOLED_MASK, Prompts, in_front
from tfxformer.data.targets.masking import best_fillings
from tfxformer.data.targets.spans import best_answers, encode_windows
from tfxformer.data.targets.words.entities import Entity, find_entities, split_texts
from tfxformer.data.targets.words.windows import WordWindows, encode_word_windows, named_labels, word_values
from tfxformer.numpy_ops import NUMPY
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.interpreters import Interpreters
from tfxformer.runtime.model_file import open_file
from tfxformer.runtime.signature_inputs import InputChecks
from tfxformer.text.inputs import as_list


class LiteRTModel:
    """A .tflite file written by `export_litert`: tokenizer, labels and task are inside.

    Args:
        path: the file.
        num_threads: int; None takes the machine's cores, at most 4, and runs many texts of one call side by side.
            More threads than free cores are slower than one: they wait for each other at every operator.

    Attributes:
        task: "text-classification", ...; None for a file without our metadata (use `run`).
        labels: list of str or None.
        problem_type, quantization: str or None.
        signatures: {name: flatbuffer.SignatureInfo}.
        tokenizer: `text.Tokenizer` or None.

    Any number of threads may use one object: calls at the same time run in interpreters of their own (`interpreters`).
    Pickled, it is its path: whoever unpickles it opens the file anew.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no .tflite file, a damaged one, or that of a causal
            language model.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None):
        file = open_file(path)
        if file.bundled or decoding.DECODE in file.signatures:
            raise ValueError(f"{path} is of a causal language model, which reads and writes: LiteRTGenerator runs it.")
        own = file.own
        self.path = file.path
        self.task = own.get("task")
        self.labels = own.get("labels")
        self.problem_type = own.get("problem_type")
        self.quantization = own.get("quantization")
        self.signatures = file.signatures
        self.tokenizer = file.tokenizer
        self._lengths = sorted((length, name) for name, length in (own.get("signatures") or {}).items() if length)
        limits = own.get("limits") or {}
        self._checks = {name: InputChecks(info, limits) for name, info in file.signatures.items()}
        self._max_length = own.get("max_length")
        self._prompts = Prompts(
            own.get("prompts") or {}, own.get("default_prompt_name"), own.get("include_prompt", True)
        )
        self._num_threads = num_threads
        self._interpreters = Interpreters(file, num_threads)
        self._warned = False

    def __reduce__(self):
        return type(self), (self.path.absolute(), self._num_threads)

    @property
    def sequence_length(self) -> int | None:
        """The longest sequence length S of the file."""
        return self._lengths[-1][0] if self._lengths else None

    def run(self, signature: str, batch: dict) -> dict:
        """Runs one signature on arrays.

        Args:
            signature: a name of `signatures`.
            batch: {input name, ours or transformers': array}, batch size 1; ids as integers of any kind.

        Returns:
            {output name: array}.

        Raises:
            ValueError: for an input that is missing, unknown, of another shape or kind, or out of its range.
        """
        if not isinstance(signature, str) or signature not in self.signatures:
            raise ValueError(f"The file has no signature {signature!r:.80}; it has {', '.join(self.signatures)}.")
        return self._interpreters.run(signature, self._checks[signature](batch))

    def predict(self, texts, pairs=None, *, truncation=True, **options):
        """What the task makes of texts, in the form of the task's own `predict`.

        Args:
            texts: B texts, or (text, text) pairs; for tagging lists of words (or texts, split at spaces); for
                answers (question, context) pairs.
            pairs: B second texts (contexts), where `texts` holds the first ones only.
            truncation: whether a longer text is cut (said in one warning per file) or an error.
            options: of embeddings, `prompt_name` or `prompt` as `tasks.TextEmbedder.predict` has them; of answers,
                `overlap` and what `data.spans.best_answers` takes; of masked texts, `top_k`.

        Returns:
            By the task of the file.

            - "text-classification": probabilities float32 [B, C] in the order of `labels`, or the scores;
            - "text-embedding": float32 [B, D];
            - "token-classification": B lists with a label for each word (longer texts are read in windows; a word that
              makes no piece gets "O" where there is that label, else None);
            - "question-answering": B lists of `data.spans.Answer`, best first;
            - "masked-lm": B lists with, for each mask, `top_k` pairs (token, probability).
        """
        readers = {
            "text-classification": self._classify,
            "text-embedding": self._embed,
            "token-classification": self._tag,
            "question-answering": self._answer,
            "masked-lm": self._fill_mask,
        }
        if self.tokenizer is None or self.task not in readers:
            raise ValueError(f"{self.path} carries no tokenizer and task: call run(signature, batch) with arrays.")
        reader = readers[self.task]
        if options:  # what a reader takes is found out by `inspect`, which takes longer than a small file
            keywords.refuse_unknown(
                options, keywords.keywords_of(type(self), reader.__name__), f"LiteRTModel.predict for {self.task}"
            )
        return reader(texts, pairs, truncation, **options)

    def _classify(self, texts, pairs, truncation):
        output = "logits" if self.problem_type == "regression" else "probabilities"
        return self._first_axis(texts, pairs, truncation, output)

    def _embed(self, texts, pairs, truncation, prompt_name=None, prompt=None):
        prompt = self._prompts.choose(prompt_name, prompt)
        if pairs is None:
            texts, pairs, _ = read_examples(texts)
        return self._first_axis(in_front(prompt, texts), pairs, truncation, "embedding", prompt)

    def _first_axis(self, texts, pairs, truncation, output, prompt=""):
        _, batch = self._encode(texts, pairs, truncation)
        if not self._prompts.pooled:
            batch[POOLED_MASK] = self._prompts.pooled_mask(batch["padding_mask"], self.tokenizer, prompt)
        return np.concatenate([row[output] for row in self._rows(batch)])

    def _tag(self, texts, pairs, truncation):
        texts = [text.split() if isinstance(text, str) else text for text in as_list(texts, "texts")]
        words = read_examples(texts, words=True).texts
        length = self.sequence_length
        if not truncation:  # refuses a text that needs more than one window
            self.tokenizer.encode(words, sequence_length=length, truncation=False, is_split_into_words=True)
        windows = self._word_windows(words)
        pieces = self._token_outputs(windows.batch, "logits").argmax(axis=-1)  # [W, S, C] -> [W, S]
        return named_labels(word_values(windows, pieces), self.labels)

    def _word_windows(self, words) -> WordWindows:
        return encode_word_windows(
            self.tokenizer, words, sequence_length=self.sequence_length, segment_ids=self._has_segments
        )

    def entities(self, texts, *, aggregation: str = "first") -> list[list[Entity]]:
        """The entities of each text, as `tasks.TokenClassifier.entities` has them.

        Raises:
            ValueError: for the file of another task.
        """
        if self.task != "token-classification" or self.tokenizer is None:
            raise ValueError(f"{self.path} is a file of {self.task}: entities come from one of token-classification.")
        split = split_texts(texts)
        windows = self._word_windows(read_examples(split.words, words=True).texts)
        logits = self._token_outputs(windows.batch, "logits")
        return find_entities(split, windows, NUMPY.softmax(logits), self.labels, aggregation)

    @keywords.checked(to=best_answers)
    def _answer(self, questions, contexts, truncation, overlap=None, **options):
        if contexts is None:
            questions, contexts, _ = read_examples(questions)
        if contexts is None:
            raise ValueError("Answers come from contexts: predict([(question, context), ...]).")
        windows = encode_windows(
            self.tokenizer,
            questions,
            contexts,
            sequence_length=self.sequence_length,
            overlap=overlap,
            segment_ids=self._has_segments,
        )
        return best_answers(windows, self._token_outputs(windows.batch, "logits"), contexts, **options)

    def _fill_mask(self, texts, pairs, truncation, top_k=5):
        _, batch = self._encode(texts, pairs, truncation)
        results = []
        for ids, row in zip(batch["token_ids"], self._rows(batch), strict=True):
            masks = np.flatnonzero(ids == self.tokenizer.mask_id)
            results.append([best_fillings(row["logits"][0, mask], self.tokenizer, top_k) for mask in masks])
        return results

    @property
    def _has_segments(self) -> bool:
        return any(t.name == "segment_ids" for info in self.signatures.values() for t in info.inputs)

    def _encode(self, texts, pairs, truncation, **options):
        if pairs is None and not options:
            texts, pairs, _ = read_examples(texts)
        encoding = self.tokenizer.encode(
            texts,
            pairs,
            sequence_length=min(self.sequence_length, self._max_length or self.sequence_length),
            truncation=truncation,
            **options,
        )
        batch = to_batch(encoding, self._has_segments, warn=not self._warned)
        self._warned |= encoding.truncated > 0
        return encoding, batch

    def _rows(self, batch: dict):
        """Runs each row of a batch [B, S] on the smallest signature that holds it; the outputs in the rows' order."""
        needed = batch["padding_mask"].sum(axis=1)

        def call(row):
            length, name = next(pair for pair in self._lengths if pair[0] >= needed[row])
            inputs = {key: self._of_length(key, array[row], length) for key, array in batch.items()}
            return name, self._checks[name](inputs)

        return self._interpreters.run_each([functools.partial(call, row) for row in range(len(needed))])

    def _of_length(self, key: str, values: np.ndarray, length: int) -> np.ndarray:
        """One row [S] without or with more padding: [1, length]."""
        if len(values) >= length:
            return values[None, :length]
        row = np.full((1, length), self.tokenizer.padding_id or 0 if key == "token_ids" else 0, values.dtype)
        row[0, : len(values)] = values
        return row

    def _token_outputs(self, batch: dict, output: str) -> np.ndarray:
        """One output of all rows, those of shorter signatures padded with zeros: [B, S, C]."""
        rows = [row[output] for row in self._rows(batch)]
        return np.concatenate([np.pad(row, ((0, 0), (0, self.sequence_length - row.shape[1]), (0, 0))) for row in rows])
