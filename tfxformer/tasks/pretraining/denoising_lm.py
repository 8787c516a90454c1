"""Denoising: an encoder-decoder learns from texts alone to write what was taken out of them, or them whole."""

from __future__ import annotations

from functools import cached_property

import keras
import numpy as np

from tfxformer.data.lengths import round_length
from tfxformer.data.targets import denoising
from tfxformer.data.targets.denoising import Rows
from tfxformer.data.targets.packing import join
from tfxformer.tasks.base.hiding import HidingMethods
from tfxformer.tasks.seq2seq_lm import Seq2SeqLM
from tfxformer.training.inputs.array_checks import Limit, Limits

# What is done to texts -> the share of their tokens that it is done to, in the paper.
CORRUPTIONS = {"spans": 0.15, "infilling": 0.3, "infilling-permutation": 0.3}
LONGEST_DEFAULT_SOURCE = 512  # tokens; texts fill rows of any length
_WORD = "a"  # any text, to see what stands around it


@keras.saving.register_keras_serializable("tfxformer")
class DenoisingLM(HidingMethods, Seq2SeqLM):
    """Pretrains an encoder-decoder on texts alone; what it saves opens as `Seq2SeqLM`.

    `fit` takes texts; datasets of batches of rows without labels, as `data.Records.dataset` gives them; or what
    `Seq2SeqLM.fit` takes as arrays. Texts run on one after another, cut into pieces of `text_length` tokens, so that no
    source has padding but the last; every epoch corrupts them anew.

    Args:
        backbone: `models.EncoderDecoder`.
        corruption: "spans" (T5: Raffel et al., 2019, arXiv:1910.10683): a sentinel, <extra_id_0>, <extra_id_1>, ...,
            stands for each span, and the target has each sentinel and its span. "infilling" (BART: Lewis et al., 2019,
            arXiv:1910.13461): a mask stands for each span, some of no token, and the target is the whole text.
            "infilling-permutation": the text's sentences stand in a random order, too.
        corruption_rate: float, the share of tokens in spans; None for the paper's: 0.15 of "spans", else 0.3.
        mean_span: float, tokens of a span on average.
        seed: int, of what is corrupted.
        sequence_length: tokens of a source, its special ones among them; None until the first `fit` chooses it: the
            model's longest, at most 512, or what all texts together fill.
        tokenizer, others: see `Seq2SeqLM`.

    Raises ValueError for an unknown corruption, a share or a mean that is none, and what `Seq2SeqLM` refuses.
    """

    task_name = "denoising-lm"
    head_name = Seq2SeqLM.task_name
    learns_from_labels = False

    def __init__(
        self,
        backbone,
        corruption="spans",
        corruption_rate=None,
        mean_span=3.0,
        seed=0,
        tokenizer=None,
        **kwargs,
    ):
        if corruption not in CORRUPTIONS:
            raise ValueError(f"corruption={corruption!r} is unknown; known: {', '.join(CORRUPTIONS)}.")
        corruption_rate = CORRUPTIONS[corruption] if corruption_rate is None else corruption_rate
        check = denoising.noise_counts if corruption == "spans" else denoising.hidden_counts
        check(1, corruption_rate, mean_span)
        super().__init__(backbone, tokenizer=tokenizer, **kwargs)
        if self.backbone.config.source_vocabulary_size is not None:
            raise ValueError(
                f"{type(self).__name__} corrupts a text and writes the text itself: encoder and decoder need one "
                "vocabulary, and this model has two."
            )
        self.corruption, self.corruption_rate, self.mean_span, self.seed = corruption, corruption_rate, mean_span, seed

    # ---- lengths ----------------------------------------------------------------------------------------------

    @property
    def text_length(self) -> int:
        """Tokens of a text that become a source of `sequence_length`: what `prepare_records(kind="pieces")` is given.

        With spans, of 512 they are 568 at a share of 0.15 and a mean of 3; with infilling those that stand beside the
        special tokens of the source or target.
        """
        length = self.sequence_length or min(self._maximum, LONGEST_DEFAULT_SOURCE)
        around = [len(before) + len(after) for before, after in (self._around_sources, self._around_targets)]
        if self.corruption == "spans":
            return denoising.uncorrupted_length(length - around[0], self.corruption_rate, self.mean_span)
        if length <= max(around):
            raise ValueError(f"sequence_length={length} has no room beside {max(around)} special tokens.")
        return length - max(around)

    def _lengths(self, text_length: int) -> tuple[int, int]:
        """Tokens of source and target of rows of so many tokens, special ones among them."""
        lengths = (text_length, text_length)
        if self.corruption == "spans":
            lengths = denoising.corrupted_lengths(text_length, self.corruption_rate, self.mean_span)
        around = (self._around_sources, self._around_targets)
        return tuple(length + sum(map(len, parts)) for length, parts in zip(lengths, around, strict=True))

    @property
    def _around_sources(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer writes before and behind a text."""
        tokenizer = self._tokenizer()
        whole = tokenizer.encode([_WORD], language=self.spoken(sources=True).source).token_ids[0].tolist()
        return _around(tokenizer.ids([_WORD], special_tokens=False)[0], whole)

    @property
    def _around_targets(self) -> tuple[list[int], list[int]]:
        """The same of a target, as every `Seq2SeqLM` writes it."""
        (whole,) = self._target_rows([_WORD], 1)
        return _around(self._tokenizer().of_targets.ids([_WORD], special_tokens=False)[0], whole)

    # ---- texts ------------------------------------------------------------------------------------------------

    def hidden_rows(self, texts, fitting: bool) -> dict:
        """See `HidingMethods.hidden_rows`."""
        examples = self.read(texts)
        if examples.pairs is not None:
            raise ValueError(f"{type(self).__name__} learns from texts alone; pairs of texts are for Seq2SeqLM.")
        ids = join(self._tokenizer().ids(examples.texts, special_tokens=False)).ids
        if not len(ids):
            raise ValueError("There is nothing to corrupt: the texts have no token.")
        if fitting and self.sequence_length is None:
            longest = min(self._maximum, LONGEST_DEFAULT_SOURCE)
            self.sequence_length = round_length(self._lengths(len(ids))[0], longest)
        pieces = denoising.text_pieces(ids, self.text_length)
        return denoising.piece_rows(pieces, self.backbone.config.padding_id)

    def corrupted(self, rows: Rows, generator: np.random.Generator) -> tuple[Rows, Rows]:
        """(sources, targets) of rows of ids, without special tokens; `generator` is the only source of chance."""
        options = {"rate": self.corruption_rate, "mean_span": self.mean_span, "generator": generator}
        if self.corruption == "spans":
            return denoising.span_corruption(*rows, self._sentinels, **options)
        mask_id = self._tokenizer().mask_id
        if mask_id is None:
            raise ValueError('The tokenizer has no mask token to stand for spans: take corruption="spans".')
        ids = rows.ids
        if self.corruption == "infilling-permutation":
            ids = denoising.sentence_permutation(*rows, self._sentence_ends, generator=generator)
        return denoising.text_infilling(ids, rows.lengths, mask_id, **options), rows

    @cached_property
    def _sentinels(self) -> tuple[int, ...]:
        return denoising.sentinel_ids(self._tokenizer())

    @cached_property
    def _sentence_ends(self) -> np.ndarray:
        return denoising.sentence_ends(self._tokenizer())

    def hidden_batch(self, inputs: dict, generator: np.random.Generator) -> tuple:
        """A batch of rows corrupted, as `fit` takes it: (inputs, targets, weights).

        Args:
            inputs: dict of int32 [B, T]: `token_ids` without special tokens, and `padding_mask`.
            generator: the only source of chance.
        """
        ids, mask = (np.asarray(inputs[name]) for name in ("token_ids", "padding_mask"))
        source_length, target_length = self._lengths(ids.shape[1])
        if self.sequence_length is not None and source_length > self.sequence_length:
            raise ValueError(
                f"Rows of {ids.shape[1]} tokens become sources of {source_length}, more than sequence_length="
                f"{self.sequence_length}: prepare rows of text_length={self.text_length}."
            )
        sources, targets = self.corrupted(Rows(ids, mask.sum(axis=1)), generator)
        sources, source_mask = self._surrounded(sources, self._around_sources, source_length)
        targets, target_mask = self._surrounded(targets, self._around_targets, target_length)
        batch = {"encoder_token_ids": sources, "encoder_padding_mask": source_mask}
        batch |= self._decoder_inputs(targets, target_mask)
        return batch, targets, target_mask.astype("float32")

    def _surrounded(self, rows: Rows, around: tuple[list[int], list[int]], length: int) -> tuple:
        """Rows between special tokens, padded to `length`: ids and which of them are real, int32 [B, length]."""
        before, after = around
        places = np.arange(length) - len(before)
        ends = rows.lengths[:, None]
        ids = np.full((len(ends), length), self.backbone.config.padding_id, "int32")
        ids[:, : len(before)] = before
        body = rows.ids[:, : length - len(before)]
        real = np.arange(body.shape[1]) < ends
        part = ids[:, len(before) : len(before) + body.shape[1]]
        part[real] = body[real]
        for index, token in enumerate(after):
            ids[places == ends + index] = token
        return ids, (places < ends + len(after)).astype("int32")

    def row_limits(self) -> Limits:
        """See `HidingMethods.row_limits`."""
        ids = Limit(0, self.backbone.config.vocabulary_size - 1, "ids of the vocabulary")
        return Limits({"token_ids": ids, "padding_mask": Limit(0, 1, "1 at tokens and 0 at padding")})

    @property
    def record_names(self):
        return ["token_ids", "padding_mask"]

    def epochs(self, records, batch_size: int = 32, *, seed: int = 0):
        """See `HidingMethods.epochs`; records of texts with special tokens are refused."""
        kind = (records.origin or {}).get("kind", "pieces")
        if kind != "pieces":
            raise ValueError(
                f"The records of {records.folder} are {kind} rows: prepare them with "
                f'prepare_records(..., kind="pieces", sequence_length={self.text_length}).'
            )
        return super().epochs(records, batch_size, seed=seed)

    def get_config(self):
        own = ("corruption", "corruption_rate", "mean_span", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _around(bare: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """What stands before and behind a text's own ids."""
    begin = next(index for index in range(len(whole)) if whole[index : index + len(bare)] == bare)
    return whole[:begin], whole[begin + len(bare) :]
