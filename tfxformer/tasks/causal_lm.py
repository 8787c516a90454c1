"""Causal language modelling: the next token, in training, in scoring, and one step at a time on a cache."""

from __future__ import annotations

import math

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.data.batches import Examples, is_raw, to_batch
from tfxformer.data.lengths import default_sequence_length, round_length
from tfxformer.data.targets import documents as language
from tfxformer.data.targets.packing import Blocks, Documents, join, pack, random_windows, strided
from tfxformer.layers import DEFAULT, Cache, GraphForm
from tfxformer.models.backbone import config_of
from tfxformer.models.decoder import check_causal
from tfxformer.tasks.base import generating
from tfxformer.tasks.base.generation_methods import ChatMethods
from tfxformer.tasks.base.language_head import (
    language_heads,
    language_logits,
    of_all_tokens,
    step_logits,
    token_scorer,
)
from tfxformer.tasks.base.record_epochs import record_epochs
from tfxformer.tasks.base.task import Task
from tfxformer.text import Encoding
from tfxformer.text.generation.token_rules import require_finite
from tfxformer.training import Epochs, Perplexity
from tfxformer.training.compiling.outputs import IGNORED, OF_TOKENS
from tfxformer.training.inputs.array_checks import Limit

LONGEST_DEFAULT_BLOCK = 512  # tokens; checkpoints that serve 8192 would fill the memory with their logits
LONGEST_DEFAULT_WINDOW = 1024


@keras.saving.register_keras_serializable("tfxformer")
class CausalLM(ChatMethods, Task):
    """Predicts each next token (Radford et al., 2019).

    `fit` takes texts; prompts with answers, or conversations (lists of {"role", "content"}), of which only the answers
    are learned; the ids of one long text, int [tokens]; or arrays and datasets as every task does, the targets at
    position s being the tokens at s + 1.

    Texts are packed into full blocks, which see no border: the padding mask numbers the documents of a block, each
    ends in the end token, and a longer one goes on in the next block. Prompts with answers and conversations stay
    whole, or lose their end where they are longer than a block.

    Args:
        backbone: `models.Decoder`.
        tokenizer: see `Task`.
        sequence_length: tokens of a block; None until the first `fit` chooses it: of texts the model's longest, at
            most 512; of prompts with answers the 95th percentile of their lengths.
        generation_config: `generation.GenerationConfig`, or a dict of its keys: what ends a text, which tokens may
            come, how long texts are. Of a checkpoint it is what its generation_config.json says.

    Logits: float32 [B, S, V], those of token s + 1 at position s.
    """

    task_name = "causal-lm"
    backbone_kind = "decoder"
    default_batch = 8  # blocks

    def __init__(self, backbone, tokenizer=None, generation_config=None, **kwargs):
        config = config_of(backbone)
        self.check_backbone(config)
        check_causal(config)
        settings = generating.as_generation_config(generation_config, config.vocabulary_size)
        super().__init__(backbone, language_heads(backbone), tokenizer=tokenizer, **kwargs)
        self.generation_config = settings

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        return language_logits(backbone, heads, backbone.forward(inputs, graph_form)["sequence_output"], graph_form)

    # ---- one step at a time -----------------------------------------------------------------------------------

    def new_cache(self, batch_size: int, length: int, longest_step: int | None = None) -> Cache:
        """An empty cache of `length` slots; see `models.Decoder.new_cache`."""
        return self.backbone.new_cache(batch_size, length, longest_step)

    def step(
        self, inputs: dict, cache: Cache, graph_form: GraphForm = DEFAULT, logits: str | None = "last", slots=None
    ):
        """New tokens on a cache, one graph over the same layers: trace it with tf.function, or in a layer of your own.

        Args:
            inputs: as `models.Decoder.step` takes them.
            cache: `Cache`, see `new_cache`.
            graph_form: how the graph is written.
            logits: "last" for those of the last token alone, "all", or None for none.
            slots: int, how many of the cache's first slots are read; None for all.

        Returns:
            (float32 [B, 1, V], [B, S, V] or None, new cache).
        """
        outputs = self.backbone.step(inputs, cache, graph_form, slots)
        return step_logits(self.backbone, self.heads, outputs, logits, graph_form)

    # ---- texts ------------------------------------------------------------------------------------------------

    def _encode(self, examples: Examples, sequence_length=None, truncation=True) -> dict:
        rows = self._tokenizer().ids(examples.texts)
        length = sequence_length or self.sequence_length or round_length(max(map(len, rows)), self._maximum)
        longer = [index for index, row in enumerate(rows) if len(row) > length]
        if longer and not truncation:
            raise ValueError(
                f"texts[{longer[0]}] has {len(rows[longer[0]])} tokens, more than {length}: give a longer "
                "sequence_length, shorten the text, or pass truncation=True."
            )
        shape = (len(rows), length)
        token_ids, mask = np.full(shape, self.backbone.config.padding_id, "int32"), np.zeros(shape, "int32")
        for row, ids in enumerate(rows):
            token_ids[row, : len(ids)], mask[row, : len(ids)] = ids[:length], 1
        return to_batch(Encoding(token_ids, mask, np.zeros_like(mask), truncated=len(longer)), False)

    def _documents(self, x, y=None) -> tuple[Documents, bool]:
        """What `fit` takes as documents, and whether they stay whole."""
        if _is_one_text(x):
            return join([x]), False
        tokenizer = self._tokenizer()
        if language.is_conversations(x):
            return language.conversation_documents(tokenizer, x), True
        examples = self.read(x, y)
        if examples.pairs is not None:
            raise ValueError("Pairs of texts: give prompts and answers as two lists, fit(prompts, answers).")
        if examples.labels is not None:
            return language.answer_documents(tokenizer, examples.texts, examples.labels), True
        return language.text_documents(tokenizer, examples.texts), False

    def _default_length(self, documents: Documents, whole: bool) -> int:
        if whole:
            return default_sequence_length(documents.lengths, self._maximum)
        return round_length(int(documents.lengths.sum()), min(self._maximum, LONGEST_DEFAULT_BLOCK))

    def _examples(self, x, y=None, sample_weight=None, *, fitting=False, stride=None):
        if not (_is_one_text(x) or is_raw(x)):
            return self._of_arrays(x, y, sample_weight)
        if sample_weight is not None:
            raise ValueError("sample_weight is for arrays: texts are packed into blocks, their tokens count alike.")
        documents, whole = self._documents(x, y)
        length = self.sequence_length or self._default_length(documents, whole)
        if fitting:
            self.sequence_length = length
        if stride is not None:
            documents, whole = strided(documents, length, stride)[0], True
        elif whole:
            documents = language.shortened(documents, length + 1)
        blocks = pack(documents, length, self.backbone.config.padding_id, whole=whole)
        return _inputs(blocks), blocks.targets, blocks.weights

    def arrays(self, given, *, fitting=False):
        """See `Task.arrays`; of texts a batch has 8 blocks unless another size is given."""
        if given.batch_size is None and (_is_one_text(given.x) or is_raw(given.x)):  # Keras takes none beside a dataset
            given = given._replace(batch_size=self.default_batch)
        return super().arrays(given, fitting=fitting)

    def target_limits(self):
        return Limit(0, self.backbone.config.vocabulary_size - 1, "ids of the vocabulary", IGNORED)

    def windows(self, x, count: int, *, sequence_length: int | None = None, seed: int = 0) -> tuple[dict, np.ndarray]:
        """Blocks that begin anywhere in one long text: `fit(*lm.windows(text, count))`.

        How nanoGPT samples: `count` is batch size times steps. Documents are not told apart.

        Args:
            x: list of texts, joined by end tokens, or the ids of one text, int [tokens].
            count: int, blocks.
            sequence_length: tokens of a block; None for the model's own.
            seed: int, of the choice.

        Returns:
            (inputs of the model, targets int32 [count, S]).
        """
        ids = np.asarray(x) if _is_one_text(x) else self._documents(x)[0].ids
        length = sequence_length or self.sequence_length or min(self._maximum, LONGEST_DEFAULT_BLOCK)
        blocks = random_windows(ids, count, length, seed)
        return _inputs(blocks), blocks.targets

    # ---- training ---------------------------------------------------------------------------------------------

    def epochs(self, records, batch_size: int = 32, *, seed: int = 0) -> Epochs:
        """The blocks of records, for a `fit` of several epochs that `training.Resume` can go on with anywhere.

        `lm.fit(lm.epochs(records, 32), epochs=3, callbacks=[training.Resume("run")])`

        Args:
            records: `data.Records` that `data.prepare_records(..., kind="causal")` made.
            batch_size: int, blocks of a batch.
            seed: int, of their order, which is another one in every epoch.

        Raises:
            ValueError: for records of another kind, or of too few blocks. RecordsError: of another tokenizer.
        """

        def batches(rows, number):
            return rows.map(lambda row: (_inputs(Blocks(**row)), row["targets"], row["weights"]))

        return record_epochs(self, records, batch_size, seed, Blocks._fields, batches)

    @property
    def output_kinds(self):
        return OF_TOKENS

    def default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")

    def default_weighted_metrics(self):
        return [Perplexity()]

    @checked
    def fit(self, x=None, y=None, batch_size=None, *args, sequence_length=None, **kwargs):
        """Fits on texts, prompts with answers, conversations, ids, arrays or datasets; see `CausalLM` and `Task.fit`.

        Args:
            x: texts, prompts or conversations, or a dataset of texts or (prompt, answer); int [tokens]; arrays.
            y: answers, where `x` are prompts.
            batch_size: int, blocks; None for 8.
            sequence_length: int, tokens of a block from now on.
            args, kwargs: as `Task.fit` has them.
        """
        if sequence_length is not None:
            if not 0 < sequence_length <= self._maximum:
                raise ValueError(f"sequence_length={sequence_length} must be 1 to {self._maximum}, the model's.")
            self.sequence_length = sequence_length
        return super().fit(x, y, batch_size, *args, **kwargs)

    @checked
    def evaluate(self, x=None, y=None, batch_size=None, *, stride=None, return_dict=False, **kwargs):
        """Loss (nats a token) and perplexity of what `fit` takes, each the mean over all tokens that count.

        Args:
            stride: None measures as `fit` trains, in blocks. An int measures long texts in overlapping windows, each
                `stride` tokens after the one before: a token counts once, and sees at least sequence_length - stride
                tokens before it, or all there are.
            others: as Keras has them.
        """
        if stride is not None:
            given = self.read_given(x, y, batch_size=batch_size, steps=kwargs.get("steps"))
            x, y, kwargs["sample_weight"] = self._examples(given.x, given.y, stride=stride)
            batch_size = given.batch_size or self.default_batch
        results = of_all_tokens(super().evaluate(x, y, batch_size, return_dict=True, **kwargs), self.loss)
        return results if return_dict else list(results.values())

    @checked(to="logits")
    def predict(self, x, batch_size=None, **kwargs):
        """Keras' `predict`: logits of arrays. Texts are continued by `generate` and measured by `score`."""
        return self.logits(x, batch_size, **kwargs)

    def logits(self, x, batch_size=None, **kwargs):
        """See `Task.logits`; of arrays, or a stream of batches."""
        given = self.read_given(x, batch_size=batch_size, steps=kwargs.get("steps"), labelled=False)
        if is_raw(given.x):
            raise ValueError(
                "A language model continues texts: use generate(prompts), or score(texts) to measure them."
            )
        return super().logits(given.x, given.batch_size, **kwargs)

    # ---- scoring ----------------------------------------------------------------------------------------------

    def score(self, texts, *, stride: int | None = None, sequence_length: int | None = None) -> np.ndarray:
        """The mean log-likelihood of each text's tokens, in nats a token: float64 [texts].

        The first token of a text has none, and no end token is added.

        Args:
            texts: list of str, each of two tokens or more.
            stride: int, how far a longer text's windows are apart, see `evaluate`; None for half of a window.
            sequence_length: int, tokens of a window; None for the longest that the model serves, at most 1024.
        """
        documents = language.text_documents(self._tokenizer(), self.read(texts).texts, end=False)
        short = np.flatnonzero(documents.lengths < 2)
        if len(short):
            raise ValueError(
                f"texts[{short[0]}] has {documents.lengths[short[0]]} tokens; the first has no likelihood."
            )
        longest = round_length(int(documents.lengths.max()) - 1, self._maximum)
        length = sequence_length or min(longest, LONGEST_DEFAULT_WINDOW)
        windows, sources = strided(documents, length, max(1, length // 2) if stride is None else stride)
        blocks = pack(windows, length, self.backbone.config.padding_id, whole=True)
        batch_size = max(1, LONGEST_DEFAULT_WINDOW // length)
        losses = token_scorer(self).predict({**_inputs(blocks), "targets": blocks.targets}, batch_size, verbose=0)
        pairs = blocks.padding_mask > 0  # in the order of the windows
        require_finite(np.isfinite(losses[pairs]).all())
        documents, weights = np.repeat(sources, windows.lengths - 1), blocks.weights[pairs]
        return -np.bincount(documents, losses[pairs] * weights) / np.bincount(documents, weights)

    def perplexity(self, text: str, *, stride: int | None = None, sequence_length: int | None = None) -> float:
        """exp of the mean negative log-likelihood of one text's tokens; arguments as in `score`."""
        return math.exp(-self.score([text], stride=stride, sequence_length=sequence_length)[0])


def _is_one_text(x) -> bool:
    """Whether `x` are the ids of one text: an integer array of one dimension."""
    return getattr(x, "ndim", None) == 1 and np.dtype(getattr(x.dtype, "name", x.dtype)).kind in "iu"


def _inputs(blocks: Blocks) -> dict:
    return {"token_ids": blocks.token_ids, "padding_mask": blocks.padding_mask}
