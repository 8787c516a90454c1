"""From a source text to a target text: translation, summaries, corrections."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.arguments import notices
from tfxformer.arguments.keywords import checked
from tfxformer.checkpoints.family import SETTINGS_KEY
from tfxformer.data.batches import Examples, is_raw
from tfxformer.data.lengths import default_sequence_length, round_length
from tfxformer.data.targets.weights import example_weights, weigh_tokens
from tfxformer.data.text_scores import check_names, text_scores
from tfxformer.generation.prompts import check_ids
from tfxformer.layers import DEFAULT, Cache, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.encoder_decoder import SOURCE_INPUTS
from tfxformer.tasks.base import generating
from tfxformer.tasks.base.generation_methods import GenerationMethods
from tfxformer.tasks.base.language_head import (
    language_heads,
    language_logits,
    of_all_tokens,
    step_logits,
    token_scorer,
)
from tfxformer.tasks.base.languages import LanguageMethods, check_languages
from tfxformer.tasks.base.task import Task
from tfxformer.text.generation.token_rules import require_finite
from tfxformer.text.inputs import as_list, as_texts
from tfxformer.training import Perplexity, SmoothedCrossEntropy
from tfxformer.training.compiling.outputs import IGNORED, OF_TOKENS
from tfxformer.training.inputs.array_checks import Limit, Limits
from tfxformer.training.inputs.given import Given

START_KEY = "decoder_start_token_id"
OWN_SETTINGS = ("target_length", "source_language", "target_language")  # in config.json, under `SETTINGS_KEY`


@keras.saving.register_keras_serializable("tfxformer")
class Seq2SeqLM(LanguageMethods, GenerationMethods, Task):
    """Writes a target for each source (Sutskever et al., 2014; Vaswani et al., 2017, arXiv:1706.03762).

    `fit` takes sources and targets as two lists of texts, a dataset of such pairs, or arrays: a dict of the inputs, the
    targets at position s being the tokens that the decoder writes behind its s-th.

    Args:
        backbone: `models.EncoderDecoder`.
        tokenizer: see `Task`.
        sequence_length: tokens of a source; None until the first `fit` chooses it from its texts.
        target_length: tokens of a target, its end among them; None until the first `fit` chooses it.
        label_smoothing: float, see `training.SmoothedCrossEntropy`.
        decoder_start_token_id: int, what the decoder begins with; None for what the checkpoint says, else the padding.
        generation_config: see `CausalLM`.
        source_language, target_language: codes of `tokenizer.languages`, where the model knows several; None for what
            the checkpoint says. They may be changed later, and `generate` takes others for one call.

    Logits: float32 [B, S, V], those of the token behind position s.

    Raises ValueError for an encoder or a decoder alone, a start token that the vocabulary has not, and a target_length
    beyond the model's.
    """

    task_name = "seq2seq-lm"
    backbone_kind = "encoder-decoder"
    learns_from_labels = True

    def __init__(
        self,
        backbone,
        tokenizer=None,
        generation_config=None,
        target_length=None,
        label_smoothing=0.0,
        decoder_start_token_id=None,
        source_language=None,
        target_language=None,
        **kwargs,
    ):
        config = config_of(backbone)
        self.check_backbone(config)
        settings = generating.as_generation_config(generation_config, config.vocabulary_size)
        start = settings.stated.get(START_KEY) if decoder_start_token_id is None else decoder_start_token_id
        start = config.padding_id if start is None else start
        if not 0 <= start < config.vocabulary_size:
            raise ValueError(f"{START_KEY}={start} is no id of the vocabulary (0 to {config.vocabulary_size - 1}).")
        longest = config.max_sequence_length
        if target_length is not None and not 0 < target_length <= longest:
            raise ValueError(f"target_length={target_length} must be 1 to {longest}, the model's positions.")
        check_languages(tokenizer, source_language, target_language)
        SmoothedCrossEntropy(label_smoothing)  # refuses what is no share
        super().__init__(backbone, language_heads(backbone), tokenizer=tokenizer, **kwargs)
        self.generation_config = settings
        self.target_length = target_length
        self.label_smoothing = label_smoothing
        self.decoder_start_token_id = start
        self.source_language, self.target_language = source_language, target_language

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        return language_logits(backbone, heads, backbone.forward(inputs, graph_form)["sequence_output"], graph_form)

    # ---- one step at a time -----------------------------------------------------------------------------------

    def new_cache(self, batch_size: int, length: int, source: dict) -> Cache:
        """A cache of `length` slots that has read a source; see `models.EncoderDecoder.new_cache`."""
        return self.backbone.new_cache(batch_size, length, source)

    def step(self, inputs: dict, cache: Cache, graph_form: GraphForm = DEFAULT, logits="last", slots=None):
        """New tokens of the decoder on a cache; arguments and result as `CausalLM.step` has them."""
        outputs = self.backbone.step(inputs, cache, graph_form, slots)
        return step_logits(self.backbone, self.heads, outputs, logits, graph_form)

    # ---- texts ------------------------------------------------------------------------------------------------

    def encode(self, sources, targets=None, *, sequence_length=None, target_length=None, truncation=True) -> dict:
        """Sources, and targets where they are given, as a batch.

        Args:
            sources, targets: lists of str of one length.
            sequence_length, target_length: tokens of each; None for the task's own, or the longest text's.
            truncation: whether a longer text is cut (said in one warning) or an error.

        Returns:
            dict of int32: encoder_token_ids and encoder_padding_mask [B, T']; with targets decoder_token_ids and
            decoder_padding_mask [B, S], the start token in front.
        """
        batch = self._sources(as_texts(sources, "sources"), sequence_length or self.sequence_length, truncation)
        if targets is None:
            return batch
        rows = self._target_rows(as_texts(targets, "targets"), len(batch["encoder_token_ids"]))
        written, mask = self._targets(rows, target_length or self.target_length, truncation)
        return {**batch, **self._decoder_inputs(written, mask)}

    def _sources(self, texts, length=None, truncation=True) -> dict:
        """Sources as arrays of `length` tokens; None for the longest, whole."""
        empty = [index for index, text in enumerate(texts) if not text.strip()]
        if empty:
            raise ValueError(f"sources[{empty[0]}] is empty: there is nothing to read in it.")
        if length is None:  # few lengths: each is compiled once
            length = round_length(int(max(self._source_counts(texts))), self._maximum)
        spoken = self.spoken(sources=True)
        encoding = self._tokenizer().encode(
            self.told_sources(texts, spoken),
            sequence_length=length,
            truncation=truncation,
            language=spoken.source,
        )
        if encoding.truncated:
            notices.warn(
                f"{encoding.truncated} of {len(texts)} sources were longer than {length} tokens and lost their end: "
                "give a longer sequence_length to keep it, truncation=False to make it an error."
            )
        return dict(zip(SOURCE_INPUTS, (encoding.token_ids, encoding.padding_mask), strict=True))

    def _source_counts(self, texts) -> np.ndarray:
        spoken = self.spoken(sources=True)
        return self._tokenizer().token_counts(self.told_sources(texts, spoken), language=spoken.source)

    def _counts(self, examples: Examples) -> np.ndarray:
        return self._source_counts(as_texts(examples.texts, "sources"))

    def _target_rows(self, texts, count: int) -> list[list[int]]:
        """The ids of the targets of `count` sources, each with its end."""
        if len(texts) != count:
            raise ValueError(f"{count} sources but {len(texts)} targets: give each source its target.")
        tokenizer = self._tokenizer().of_targets
        end = tokenizer.eos_id
        if end is None:
            raise ValueError(
                "The tokenizer has no end token, so no target would ever end: take one that has, such as T5's, or make "
                'one: Tokenizer.train_byte_level_bpe(texts, size), or Tokenizer.characters(texts, ("</s>",)).'
            )
        spoken, rows = self.spoken(targets=True), tokenizer.ids(texts, special_tokens=False)
        first = [] if spoken.first is None else [spoken.first]
        return [[*first, *row, *([] if row[-1:] == [end] else [end]), *spoken.last] for row in rows]

    def _targets(self, rows, length=None, truncation=True) -> tuple[np.ndarray, np.ndarray]:
        """The tokens to be written, int32 [B, S], and which of them are real; `length` None for the longest, whole."""
        length = length or round_length(max(map(len, rows)), self._maximum)
        longer = [index for index, row in enumerate(rows) if len(row) > length]
        if longer and not truncation:
            raise ValueError(
                f"targets[{longer[0]}] has {len(rows[longer[0]])} tokens with its end, more than {length}: give a "
                "longer target_length, or shorten it."
            )
        if longer:
            notices.warn(
                f"{len(longer)} of {len(rows)} targets were longer than {length} tokens and lost their end: give a "
                "longer target_length to keep it."
            )
        return self._padded(rows, length)

    def _padded(self, rows, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Lists of ids as arrays, int32 [B, length], and which of them are real; what is longer is cut."""
        ids = np.full((len(rows), length), self.backbone.config.padding_id, "int32")
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)], mask[index, : len(row)] = row[:length], 1
        return ids, mask

    def _decoder_inputs(self, targets, mask) -> dict:
        shifted = np.concatenate([np.full_like(targets[:, :1], self._start), targets[:, :-1]], axis=1)
        return {"decoder_token_ids": shifted, "decoder_padding_mask": mask}

    @property
    def _start(self) -> int:
        start = self.spoken().start
        return self.decoder_start_token_id if start is None else start

    def choose_sequence_length(self, examples: Examples) -> None:
        super().choose_sequence_length(examples)
        if self.target_length is None and examples.labels is not None:
            rows = self._target_rows(as_texts(examples.labels, "targets"), len(examples.texts))
            lengths = [len(row) for row in rows]
            self.target_length = default_sequence_length(lengths, self._maximum)

    def prepare(self, examples: Examples, sample_weight=None):
        if examples.pairs is not None:
            raise ValueError("Pairs of texts: give sources and targets as two lists, fit(sources, targets).")
        batch = self._sources(as_texts(examples.texts, "sources"), self.sequence_length)
        if examples.labels is None:
            return batch, None, sample_weight
        rows = self._target_rows(as_texts(examples.labels, "targets"), len(examples.texts))
        targets, mask = self._targets(rows, self.target_length)
        weights = mask.astype("float32")
        if sample_weight is not None:
            weights = weights * example_weights(sample_weight, len(targets))[:, None]
        return {**batch, **self._decoder_inputs(targets, mask)}, targets, weights

    def named_inputs(self, batch):
        return self.backbone.named_inputs(batch)

    def _of_arrays(self, x, y, sample_weight):
        return weigh_tokens(self._by_our_names(x), y, sample_weight, "decoder_padding_mask")

    def limits(self) -> Limits:
        config, mask = self.backbone.config, Limit(0, None, "0 at padding and 1 at tokens")
        inputs = {}
        for stack, rows in (("encoder", config.read_vocabulary_size), ("decoder", config.vocabulary_size)):
            inputs[f"{stack}_token_ids"] = Limit(0, rows - 1, "ids of the vocabulary")
            inputs[f"{stack}_padding_mask"] = mask
        return super().limits()._replace(inputs=inputs)

    def target_limits(self):
        return Limit(0, self.backbone.config.vocabulary_size - 1, "ids of the vocabulary", IGNORED)

    # ---- training ---------------------------------------------------------------------------------------------

    @property
    def output_kinds(self):
        return OF_TOKENS

    def default_loss(self):
        if self.label_smoothing:
            return SmoothedCrossEntropy(self.label_smoothing)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")

    def default_weighted_metrics(self):
        return [Perplexity()]

    @checked
    def evaluate(self, x=None, y=None, batch_size=None, *, metrics=(), generation=None, return_dict=False, **kwargs):
        """Loss (nats a token) and perplexity of what `fit` takes, each the mean over all tokens of the targets.

        Args:
            x, y, batch_size, others: as Keras' `evaluate` has them; with metrics, sources and targets as texts.
            metrics: names of `data.text_scores.TEXT_SCORES` ("bleu", "chrf", "rougeL", ...), a score each of what
                `generate` writes for the sources, beside the whole targets; they need the extra [metrics].
            generation: dict, how `generate` writes them, such as {"sampler": Beams(4), "max_new_tokens": 60}.
        """
        names, given = check_names(metrics or ()), Given(x, y, kwargs.pop("sample_weight", None), batch_size)
        if names:
            given = self._texts_to_score(given, kwargs)
        elif generation is not None:
            raise ValueError("generation says how texts are written for metrics, and there are none: name some.")
        results = super().evaluate(
            given.x, given.y, given.batch_size, sample_weight=given.sample_weight, return_dict=True, **kwargs
        )
        results = of_all_tokens(results, self.loss)
        if names:
            shown = {"batch_size": given.batch_size or self.default_batch, "verbose": kwargs.get("verbose", "auto")}
            written = self.generate(as_list(given.x, "sources"), **{**shown, **(generation or {})})
            results |= text_scores(written, given.y, names)
        return results if return_dict else list(results.values())

    def _texts_to_score(self, given: Given, options: dict) -> Given:
        """What came to `evaluate`, its streams as lists of texts, since each is read twice; ValueError for arrays."""
        found = self.read_given(
            given.x, given.y, given.sample_weight, batch_size=given.batch_size, steps=options.get("steps")
        )
        if not is_raw(found.x) or found.y is None:
            raise ValueError("metrics compare written texts with wanted ones: give sources and targets as texts.")
        if found.steps:
            options["steps"] = None
        return found

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs):
        """Keras' `predict`: logits of arrays. Targets are written by `generate` and measured by `score`."""
        return self.logits(x, batch_size, **kwargs)

    def logits(self, x, batch_size=None, **kwargs):
        """See `Task.logits`; of arrays, or a stream of batches."""
        given = self.read_given(x, batch_size=batch_size, steps=kwargs.get("steps"), labelled=False)
        if is_raw(given.x):
            raise ValueError(
                "A model of sources and targets writes: use generate(sources), or score(sources, targets)."
            )
        return super().logits(given.x, given.batch_size, **kwargs)

    # ---- writing ----------------------------------------------------------------------------------------------

    def read_prompts(self, prompts) -> tuple[list[list[int]], dict]:
        """The start token for each source, and the sources as arrays; of texts, or of lists of ids as they are."""
        sources = as_list(prompts, "sources")
        of_texts = sources and all(isinstance(one, str) for one in sources)
        batch = self._sources(sources, truncation=False) if of_texts else self._of_ids(sources)
        self.spoken(targets=of_texts)
        return [[self._start]] * len(sources), {"source": batch}

    def _of_ids(self, sources) -> dict:
        if not sources:
            raise ValueError("There is no source: give at least one text.")
        rows = [np.asarray(row) for row in sources]
        for index, row in enumerate(rows):
            if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":
                raise TypeError(f"sources[{index}] must be a text or a list of token ids, not {sources[index]!r:.80}.")
            if len(row) > self._maximum:
                raise ValueError(
                    f"sources[{index}] has {len(row)} tokens, the model has positions for {self._maximum}: shorten it."
                )
            check_ids(row, self.backbone.config.read_vocabulary_size, f"sources[{index}]")
        length = round_length(max(map(len, rows)), self._maximum)
        return dict(zip(SOURCE_INPUTS, self._padded(rows, length), strict=True))

    def score(self, sources, targets, batch_size: int = 8) -> np.ndarray:
        """The mean log-likelihood of each target's tokens, its end among them: float64 [texts], in nats a token.

        Args:
            sources, targets: lists of str of one length, none longer than the model; none is cut.
            batch_size: int, pairs of a batch.
        """
        batch = self._sources(as_texts(sources, "sources"), truncation=False)
        rows = self._target_rows(as_texts(targets, "targets"), len(batch["encoder_token_ids"]))
        wanted, weights = self._targets(rows, truncation=False)
        batch |= self._decoder_inputs(wanted, weights)
        losses = token_scorer(self).predict({**batch, "targets": wanted}, batch_size, verbose=0)
        require_finite(np.isfinite(losses[weights > 0]).all())
        return -(losses * weights).sum(axis=1, dtype="float64") / weights.sum(axis=1, dtype="float64")

    # ---- saving -----------------------------------------------------------------------------------------------

    @classmethod
    def arguments_from(cls, reference, arguments):
        settings, given = reference.get(SETTINGS_KEY) or {}, super().arguments_from(reference, arguments)
        stated = {name: settings.get(name) for name in OWN_SETTINGS} | {START_KEY: reference.get(START_KEY)}
        file = given["generation_config"]
        if getattr(file, "stated", {}).get(START_KEY) is not None:  # it counts before config.json
            stated[START_KEY] = file.stated[START_KEY]
        return {**stated, **given}

    def reference_changes(self):
        ours = super().reference_changes()
        ours[SETTINGS_KEY] |= {name: getattr(self, name) for name in OWN_SETTINGS}
        return {**ours, START_KEY: self.decoder_start_token_id, "is_encoder_decoder": True}

    def get_config(self):
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in OWN_SETTINGS},
            "label_smoothing": self.label_smoothing,
            START_KEY: self.decoder_start_token_id,
        }
