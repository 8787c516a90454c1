"""Permutation language modelling: tokens predicted one after another, in an order drawn at random."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.data.targets.masking import MaskedPositions
from tfxformer.tasks.masked_lm import POSITIONS, MaskedLM, token_logits

RANKS = "masked_ranks"


@keras.saving.register_keras_serializable("tfxformer")
class PermutationLM(MaskedLM):
    """Predicts chosen tokens in a random order, each from the others' contents and its own place alone.

    No mask stands in the text, and what was predicted is seen by what comes after: two-stream attention (Yang et al.,
    2019, arXiv:1906.08237) on an encoder with learned positions. Queries begin as the mask token's embedding, so the
    trained encoder has no weight that a `MaskedLM` has not, and is saved as one.

    Args:
        backbone: `models.Encoder`.
        masking_rate: float, the share of tokens that is predicted; the paper's K of 6 is 1 / 6.
        others: see `MaskedLM`; "spans" predicts pieces of text as the paper does.

    `fit(texts)`. A batch has `masked_positions` int32 [B, P], whose tokens stay in `token_ids` and are seen in the
    order of the columns, or of `masked_ranks` int32 [B, P] where there are some (equal ranks do not see each other).
    `predict` fills masks from the rest of the text alone. Without positions a call gives what `MaskedLM` gives.
    """

    task_name = "permutation-lm"
    head_name = MaskedLM.task_name
    further_inputs = (POSITIONS, RANKS)

    def __init__(self, backbone, masking_rate=1 / 6, masking="spans", mask_id=None, tokenizer=None, **kwargs):
        super().__init__(backbone, masking_rate=masking_rate, masking=masking, tokenizer=tokenizer, **kwargs)
        self.mask_id = tokenizer.mask_id if mask_id is None and tokenizer is not None else mask_id

    def call(self, inputs, training=None, mask=None):
        if POSITIONS not in inputs:
            return super().call(inputs, training=training, mask=mask)
        if self.mask_id is None:
            raise ValueError("Queries begin as the mask token: pass mask_id, or a tokenizer that has one.")
        positions = inputs[POSITIONS]
        ranks = inputs[RANKS] if RANKS in inputs else ops.cumsum(ops.ones_like(positions), axis=1)
        queries = self.backbone.two_streams(inputs, positions, ranks, self.mask_id)
        return token_logits(self.backbone, self.heads, queries)

    def mask_positions(self, token_ids, generator: np.random.Generator) -> MaskedPositions:
        """The chosen places in a random order; no token is hidden, nor replaced."""
        places = super().mask_positions(token_ids, generator)
        order = generator.permuted(
            np.broadcast_to(np.arange(places.positions.shape[1]), places.positions.shape), axis=1
        )
        columns = (np.take_along_axis(array, order, axis=1) for array in places[1:])
        return MaskedPositions(np.asarray(token_ids, np.int32), *columns)

    def _at(self, inputs, positions):
        # All masks at once: none sees another.
        return {**super()._at(inputs, positions), RANKS: np.ones_like(positions)}

    def get_config(self):
        return {**super().get_config(), "mask_id": self.mask_id}
