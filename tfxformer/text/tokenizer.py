"""`Tokenizer`: texts to int32 arrays of a static length and back, exactly as the checkpoint's own."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import normalizers

from tfxformer.arguments.keywords import checked
from tfxformer.files import replacing_folder, write_json, write_text
from tfxformer.text import files, gguf
from tfxformer.text.chat import templates as chat
from tfxformer.text.encoding import Encoding, Run, check_lengths, check_padding
from tfxformer.text.forks import renew_in_children
from tfxformer.text.inputs import as_texts, check_unicode, texts_or_pairs, truncation_strategy
from tfxformer.text.sentencepieces.backend import UNMET
from tfxformer.text.sentencepieces.languages import Languages
from tfxformer.text.sentencepieces.rules import SETTINGS, SentencePieceRules
from tfxformer.text.vocabulary import adding, stored, trimming
from tfxformer.text.vocabulary import training as vocabulary
from tfxformer.text.vocabulary.continuations import continuations

if TYPE_CHECKING:
    from typing_extensions import Self


class Tokenizer:
    """A Hugging Face tokenizer (WordPiece, BPE or Unigram) that writes batches for Keras models.

    Attributes:
        kind: "WordPiece", "BPE" or "Unigram".
        truncation_side: "right" or "left", where a text that is too long loses tokens.
        vocabulary_size: tokens, added ones included.
        languages: the codes of the languages that `encode` takes; empty for most tokenizers.
        known_languages: how they are marked, `sentencepieces.languages.Languages`.
        bos_id, eos_id, padding_id, unknown_id, mask_id, cls_id, sep_id: ids, or None where the vocabulary has no
            such token.
        model_max_length: longest sequence the checkpoint declares, or None.
    """

    def __init__(self, tokenizer_json: str, config: dict[str, Any] | None = None):
        """From the text of a tokenizer.json and the settings of a tokenizer_config.json."""
        # The text itself is kept and saved: read back from the backend, floats differ in their last bit.
        self._tokenizer_json = tokenizer_json
        self._config = dict(config or {})
        backend = tokenizers.Tokenizer.from_str(tokenizer_json)
        # A tokenizer.json may carry baked-in truncation and padding (MiniLM's says 128 and 128). They are
        # reset, so that lengths are what the caller asks for; the text that is saved still has them.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._rules = SentencePieceRules(backend, self._config)
        self._word_backend: tokenizers.Tokenizer | None = None
        self._lock = threading.Lock()  # truncation is state of the backend
        renew_in_children(self)

        roles = files.special_tokens(backend, self._config)
        ids = {role: None if token is None else backend.token_to_id(token) for role, token in roles.items()}
        self.bos_id = ids["bos_token"]
        self.eos_id = ids["eos_token"]
        self.padding_id = ids["pad_token"]
        self.unknown_id = ids["unk_token"]
        self.mask_id = ids["mask_token"]
        self.cls_id = ids["cls_token"]
        self.sep_id = ids["sep_token"]
        self.kind = type(backend.model).__name__
        self.truncation_side = self._config.get("truncation_side", "right")
        self.vocabulary_size = self._rules.rows or backend.get_vocab_size(with_added_tokens=True)
        self.known_languages = Languages(backend, self._config, roles["eos_token"])
        self.languages = tuple(self.known_languages.ids)
        if template := self.known_languages.template(None):
            backend.post_processor = template
        self.model_max_length = files.longest_text(self._config)

    @classmethod
    @checked
    def from_pretrained(cls, folder: str | Path) -> Self:
        """From a Hugging Face folder: tokenizer.json, or where only they exist vocab.txt or SentencePiece models."""
        return cls(*files.read_folder(folder))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """From one tokenizer.json; special tokens are found by their conventional names."""
        return cls(files.read_tokenizer_json(path))

    @classmethod
    def from_vocabulary(
        cls,
        path: str | Path,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
    ) -> Self:
        """From a BERT vocab.txt; `strip_accents=None` strips them exactly when lowercasing."""
        vocabulary = stored.read_vocabulary(path)
        return cls(stored.wordpiece(vocabulary, lowercase, strip_accents, tokenize_chinese_chars).to_str())

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Self:
        """From the metadata of a GGUF file (`checkpoints.GGUFFile(path).metadata`): BPE of bytes or SentencePiece."""
        return cls(*gguf.read_fields(fields))

    @classmethod
    def train_byte_level_bpe(
        cls, texts: Iterable[str], vocabulary_size: int, special_tokens: Sequence[str] = ("<|endoftext|>",)
    ) -> Self:
        """A byte-level BPE learned from texts, of at most `vocabulary_size` tokens, all 256 bytes among them.

        The first special token, where there is one, begins and ends texts and pads batches.

        Raises:
            TypeError, ValueError: for what is no text, no text at all, or a vocabulary too small for the bytes.
        """
        return cls(*vocabulary.byte_level_bpe(texts, vocabulary_size, special_tokens))

    @classmethod
    def train_word_piece(cls, texts: Iterable[str], vocabulary_size: int, lowercase: bool = True) -> Self:
        """A BERT tokenizer (WordPiece) learned from texts, of at most `vocabulary_size` tokens.

        Raises:
            TypeError, ValueError: for what is no text, no text at all, or a vocabulary too small for the characters.
        """
        return cls(*vocabulary.word_piece(texts, vocabulary_size, lowercase))

    @classmethod
    def characters(cls, text: str | Iterable[str], special_tokens: Sequence[str] = ()) -> Self:
        """One id for each character of a text (or of a list of texts), in their order, and a last one for any other.

        The first special token, where there is one, begins and ends texts and pads batches, and they have the first
        ids. Without any there is no begin and no end token, and a batch is padded with the last id. What
        writes targets (`tasks.Seq2SeqLM`) needs an end token: `special_tokens=("</s>",)`.
        """
        return cls(*vocabulary.characters(text, special_tokens))

    @classmethod
    def from_json(cls, content: str) -> Self:
        """From what `to_json` wrote, or from the bare text of a tokenizer.json."""
        return cls(*files.read_parts(content))

    def to_json(self) -> str:
        """Everything of this tokenizer in one JSON object: "tokenizer" (tokenizer.json) and "config"."""
        return files.write_parts(self._tokenizer_json, self._config)

    def tokenizer_json(self) -> str:
        """The text of tokenizer.json alone, as other runtimes read it, baked-in lengths included."""
        return self._tokenizer_json

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json, the chat template and, for WordPiece, vocab.txt.

        Where targets have ids of their own, transformers finds what writes them in the folder target_tokenizer. All or
        nothing: they replace those of an older tokenizer in one step. Other files of the folder stay.
        """
        config = files.saved_config(self._backend, self._config)
        with replacing_folder(folder, files.SAVED_FILES) as new:
            files.write_chat_template(new, config)
            write_text(new / "tokenizer.json", self._tokenizer_json)
            write_json(new / "tokenizer_config.json", config, indent=2)
            if self.of_targets.vocabulary() != self.vocabulary():
                self.of_targets.save_pretrained(new / files.OF_TARGETS)
            if self.kind == "WordPiece":
                write_text(new / "vocab.txt", "".join(f"{token}\n" for token in self.vocabulary()))

    def vocabulary(self) -> list[str]:
        """All tokens, added ones included, in the order of their ids."""
        by_id = {index: token for token, index in self._backend.get_vocab(with_added_tokens=True).items()}
        # A file that lists a token twice leaves a gap at the first; no text can match the name given to it.
        tokens = [by_id.get(index, f"[unused-{index}]") for index in range(max(by_id) + 1)]
        return tokens if SETTINGS not in self._config else [token.rstrip(UNMET) for token in tokens[: self._rules.rows]]

    def continuations(self) -> np.ndarray:
        """Which tokens continue the word before them: bool [vocabulary].

        WordPiece marks them ("##"); byte-level BPE and Unigram mark the tokens that begin a word ("Ġ", "▁"), and a
        vocabulary without either has no words of several tokens.
        """
        return continuations(self._backend, self.vocabulary(), self.special_ids)

    @property
    def chat_template(self) -> str | None:
        """The jinja source of the checkpoint's chat template, or None; ValueError for several without a default."""
        return chat.chosen_template(self._config)

    def apply_chat_template(
        self,
        messages: Iterable[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        template: str | None = None,
        *,
        tools: Sequence[Mapping[str, Any] | Callable] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **variables,
    ) -> str:
        """A conversation as one text, ready for `ids([text], special_tokens=False)`: it has its special tokens.

        Args:
            messages: dicts with "role" and "content", first to last.
            add_generation_prompt: end with the beginning of the assistant's next message.
            template: name of one of the checkpoint's templates, or jinja source; None takes the checkpoint's.
                `text.TURNS` is for models without roles (DialoGPT).
            tools: functions that the model may call, with type hints and "Args:" in the docstring, or JSON schemas of
                them. `text.parse_tool_calls` reads the calls out of its answer.
            documents: dicts, what the model may quote, by "title" and "text".
            variables: what else the template reads, such as `enable_thinking=False`.

        Raises:
            TypeError, ValueError: for messages in a wrong form, variables that the template does not read, no template,
                one that refuses these messages, reaches for what its sandbox forbids, or makes too much.
        """
        tokens = files.special_tokens(self._backend, self._config)
        given = {"tools": tools, "documents": documents, **variables}
        return chat.apply(self._config, tokens, messages, template, add_generation_prompt, given)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of all that ids depend on, in hexadecimal: tokenizers with equal ones write equal ids for every text."""
        parts = json.loads(self._tokenizer_json)
        steps = [parts.get(name) for name in ("normalizer", "pre_tokenizer", "model", "post_processor", "added_tokens")]
        roles = files.special_tokens(self._backend, self._config)
        ours = [self._config[name] for name in (SETTINGS, "src_lang") if self._config.get(name)]
        told = json.dumps([steps, roles, self.truncation_side, *ours], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the special tokens there are, without repetition."""
        ids = (self.padding_id, self.unknown_id, self.mask_id, self.cls_id, self.sep_id, self.bos_id, self.eos_id)
        return tuple(sorted({index for index in ids if index is not None}))

    @functools.cached_property
    def of_targets(self) -> Tokenizer:
        """What writes the targets of an encoder-decoder: this one, or of Marian another, with its ids or others."""
        target = (self._config.get(SETTINGS) or {}).get("target")
        return Tokenizer.from_json(json.dumps(target)) if target else self

    @property
    def lowercase(self) -> bool:
        """Whether a BERT normalizer lowercases the text; False for every other kind."""
        normalizer = self._backend.normalizer
        return isinstance(normalizer, normalizers.BertNormalizer) and normalizer.lowercase

    @checked
    def encode(
        self,
        texts: Iterable[str] | Iterable[list[str]],
        pairs: Iterable[str] | Iterable[list[str]] | None = None,
        *,
        sequence_length: int | None = None,
        truncation: bool | str = True,
        is_split_into_words: bool = False,
        return_overflow: bool = False,
        overlap: int = 0,
        return_offsets: bool = False,
        language: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Encoding:
        """Token ids of texts (or text pairs), padded on the right to one length.

        Args:
            texts: B texts; lists of words with `is_split_into_words`.
            pairs: B second texts, or None.
            sequence_length: S, special tokens included; None takes the longest of the batch.
            truncation: True cuts the longer text first, to `sequence_length`, else to `model_max_length`;
                "only_first" and "only_second" cut that text of a pair; False raises for longer texts.
            return_overflow: instead of dropping what does not fit, go on with it in further windows,
                each with its special tokens; of a pair only the text that `truncation` names is cut.
            overlap: tokens that a window repeats of the one before.
            return_offsets: also fill `offsets`, `word_ids` and `sequence_ids`.
            language: one of `languages`, which the texts are in; None for what the settings state.
            progress: called with (texts done, texts in all) as encoding goes on.

        Raises:
            TypeError: something that is not text. ValueError: lists of different lengths, a text that is
            too long (with `truncation=False`), a length without room, no padding token.
        """
        given = texts_or_pairs(texts, pairs, is_split_into_words)
        inputs = self._rules.texts(given)
        strategy = truncation_strategy(truncation, pairs is not None, return_overflow, overlap)
        limit = self.model_max_length if sequence_length is None else sequence_length
        with self._lock, self.known_languages.spoken(self._backend, language):
            run = self._run(is_split_into_words, return_offsets)
            with run.cutting(inputs, pairs is not None, limit, strategy, overlap, self.truncation_side):
                packer, samples, truncated = run.all(inputs, limit, return_overflow, progress)
        lengths = packer.lengths()
        if strategy is None:
            check_lengths(lengths, limit)
        width = sequence_length or int(lengths.max(initial=0))
        check_padding(lengths, width, self.padding_id)
        arrays = packer.pack(width, self.padding_id or 0)
        self._rules.trace(arrays, given, samples, pairs is not None)
        arrays["token_ids"] = self._rules.ids(arrays["token_ids"], self.unknown_id)
        return Encoding(
            **arrays,
            truncated=truncated,
            overflow_to_sample=np.array(samples, np.int32) if return_overflow else None,
        )

    def ids(self, texts: Iterable[str], special_tokens: bool = True) -> list[list[int]]:
        """Token ids of each text as a list, whole: neither cut nor padded.

        `special_tokens=False` leaves out what the tokenizer puts around a text; those within it are still found.
        """
        texts = self._rules.texts(as_texts(texts))
        with self._lock:
            try:
                encodings = self._backend.encode_batch_fast(texts, add_special_tokens=special_tokens)
            except TypeError:
                check_unicode(texts)
                raise
        return [self._rules.ids(encoding.ids, self.unknown_id) for encoding in encodings]

    def token_counts(
        self,
        texts: Iterable[str] | Iterable[list[str]],
        pairs: Iterable[str] | Iterable[list[str]] | None = None,
        *,
        is_split_into_words: bool = False,
        language: str | None = None,
    ) -> np.ndarray:
        """Length of each text (or pair) in tokens, special ones included, before any cut: int64 [B]."""
        inputs = self._rules.texts(texts_or_pairs(texts, pairs, is_split_into_words))
        with self._lock, self.known_languages.spoken(self._backend, language):
            return self._run(is_split_into_words).counts(inputs, special_tokens=True)

    def trimmed(self, texts: Iterable[str]) -> tuple[Tokenizer, np.ndarray]:
        """A tokenizer with what these texts use only: they keep their tokens, numbered anew; see `text.trimming`.

        Returns:
            (Tokenizer, int64 [kept]: for each of its ids the one of this tokenizer, ascending).

        Raises:
            ValueError: for other tokenizers than WordPiece and BPE, and no text at all. TypeError: for what is no text.
        """
        if SETTINGS in self._config:
            raise ValueError(
                "A tokenizer made of SentencePiece models is not trimmed: its settings name rows and pieces."
            )
        kept = sorted(trimming.used_tokens(self._backend, texts).union(self.special_ids))
        content, config = trimming.trimmed_parts(json.loads(self._tokenizer_json), self._config, kept)
        return Tokenizer(json.dumps(content, ensure_ascii=False), config), np.array(kept)

    def with_tokens(self, tokens: Iterable[str]) -> Tokenizer:
        """A tokenizer that finds further tokens first in texts; ids behind its own. See `text.vocabulary.adding`."""
        return Tokenizer(*adding.added_parts(self._tokenizer_json, self._config, self.vocabulary(), tokens))

    def in_graph(self, sequence_length: int):
        """BERT's tokenizer as a `graph.GraphTokenizer`, for `tf.data` maps and SavedModels: string [B] -> the batch.

        Raises:
            ImportError: without tensorflow-text (the extra [text]).
            ValueError: for a tokenizer that no graph can follow exactly.
        """
        from tfxformer.text.graph.tokenizers import GraphTokenizer

        return GraphTokenizer(self, sequence_length)

    def decode(self, ids: Iterable[Iterable[int]], skip_special_tokens: bool = True) -> list[str]:
        """Texts of rows of token ids [B,S]."""
        rows = [self._rules.ids(np.asarray(row).tolist(), self.unknown_id) for row in ids]
        with self._lock:
            texts = self._backend.decode_batch(rows, skip_special_tokens=skip_special_tokens)
        return [files.cleaned(self._rules.decoded(text), self._config, self.kind) for text in texts]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and json.loads(self.to_json()) == json.loads(other.to_json())

    __hash__ = None

    def __reduce__(self):
        return Tokenizer, (self._tokenizer_json, self._config)

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocabulary_size} tokens, model_max_length={self.model_max_length})"

    def _run(self, words: bool, with_offsets: bool = False) -> Run:
        """A pass over texts; call it holding the lock.

        Byte-level BPE glues words unless each gets its leading space; transformers asks the user to open the
        tokenizer with `add_prefix_space=True` for that, here it is done.
        """
        if not words:
            return Run(self._backend, False, with_offsets)
        if self._word_backend is None:
            self._word_backend = files.prefix_space_backend(self._tokenizer_json) or self._backend
        return Run(self._word_backend, True, with_offsets)
