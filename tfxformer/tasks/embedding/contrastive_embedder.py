"""Contrastive training of text embeddings: each text's partner among all of the batch."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.data.batches import is_raw, read_examples
from tfxformer.tasks.embedding.text_embedder import TextEmbedder
from tfxformer.text.inputs import as_list
from tfxformer.training.inputs.given import Given
from tfxformer.training.scheduled_model import AUTO


@keras.saving.register_keras_serializable("tfxformer")
class ContrastiveEmbedder(TextEmbedder):
    """A `TextEmbedder` that learns which texts belong together, the others of the batch being the wrong answers.

    `fit(pairs)` of texts that mean the same (in-batch negatives: Henderson et al., 2017, arXiv:1705.00652);
    `fit(texts)` pairs each text with itself, read through another dropout (SimCSE: Gao et al., 2021,
    arXiv:2104.08821). Arrays may have more columns, [B, K, S]: an anchor, its partner, and texts that are wrong for it.
    Under a strategy a text is compared with those of all replicas.

    Args:
        temperature: float, what cosines are divided by.
        others: see `TextEmbedder`.

    The loss is the cross-entropy of the anchors' cosines with all partners (and wrong texts) of the batch; its metric
    is how often the own partner is the nearest. Output: float32 [B, D], of arrays [B, K, S] float32 [B, K, D];
    `predict`, files and export are those of a `TextEmbedder`.

    Raises ValueError for a temperature that is not above 0.
    """

    compares_samples = True
    learns_from_labels = False

    def __init__(self, backbone, temperature=0.05, **kwargs):
        if not temperature > 0:
            raise ValueError(f"temperature divides the cosines and must be above 0, got {temperature!r}.")
        super().__init__(backbone, **kwargs)
        self.temperature = temperature
        self.in_batch_accuracy = keras.metrics.Mean(name="in_batch_accuracy")

    def compile(self, optimizer=AUTO, loss=AUTO, metrics=AUTO, *, weighted_metrics=None, **kwargs):
        """See `Task.compile`; the loss is the class' own, and there are no labels for others."""
        given = {"loss": loss, "metrics": metrics, "weighted_metrics": weighted_metrics}
        for name, value in given.items():
            if value and not (isinstance(value, str) and value == AUTO):
                raise ValueError(
                    f"{name}={value!r}: a ContrastiveEmbedder has its own loss and metric, and no labels to compare "
                    "with. Leave it out, or use TextEmbedder.fit(pairs, scores)."
                )
        super().compile(optimizer, None, None, **kwargs)

    def read_given(self, x, y=None, sample_weight=None, **arguments) -> Given:
        """See `Task.read_given`; single texts become pairs of each with itself."""
        given = super().read_given(x, y, sample_weight, **arguments)
        if given.y is not None:
            raise ValueError(
                "A contrastive loss takes no scores: fit(pairs), of a dataset ((text, text),), or use "
                "TextEmbedder.fit(pairs, scores)."
            )
        return given if not arguments.get("labelled", True) else given._replace(x=self._pairs(given.x))

    def _held_out(self, validation_data, arguments):
        several = isinstance(validation_data, tuple) and len(validation_data) > 1
        return super()._held_out((validation_data,) if several else validation_data, arguments)

    def _pairs(self, x):
        """Texts, each with itself, and pairs as they are; what is no text stays what it is."""
        if not is_raw(x):
            return x
        rows = as_list(x, "texts")
        if rows and all(isinstance(row, (list, tuple)) and len(row) > 2 for row in rows):
            raise ValueError(
                f"Examples of {len(rows[0])} texts: wanted texts, or pairs (text, text), whose wrong partners are the "
                "others of the batch. With wrong texts of your own give arrays [B, K, S]: columns = [embedder.encode("
                "texts, sequence_length=64) for texts in (anchors, partners, wrong)], fit({name: np.stack([column[name]"
                " for column in columns], axis=1) for name in columns[0]})."
            )
        examples = read_examples(rows)
        return list(zip(examples.texts, examples.pairs or examples.texts, strict=True))

    def call(self, inputs, training=None, mask=None):
        shape = ops.shape(inputs["token_ids"])
        if len(shape) == 2:
            return super().call(inputs, training=training, mask=mask)
        flat = {name: ops.reshape(ids, (-1, shape[2])) for name, ids in inputs.items()}  # [B, K, S] -> [B * K, S]
        vectors = ops.normalize(super().call(flat, training=training), axis=-1)
        return ops.reshape(vectors, (-1, shape[1], vectors.shape[-1]))  # [B * K, D] -> [B, K, D]

    def cosines(self, vectors):
        """Each anchor's cosines with its partner and all others: [B, K, D] -> [B, (K - 1) * B], the own at row b."""
        columns = ops.reshape(ops.transpose(vectors[:, 1:], (1, 0, 2)), (-1, vectors.shape[-1]))
        return ops.matmul(vectors[:, 0], ops.transpose(columns))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean over all anchors of the cross-entropy of their partners."""
        logits = self.cosines(y_pred) / self.temperature
        own = ops.arange(ops.shape(logits)[0])
        losses = ops.sparse_categorical_crossentropy(own, logits, from_logits=True)
        if sample_weight is None:
            return ops.mean(losses)
        weights = ops.cast(sample_weight, losses.dtype)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-9)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        cosines = self.cosines(y_pred)
        own = ops.arange(ops.shape(cosines)[0])
        nearest = ops.cast(ops.argmax(cosines, axis=-1), own.dtype)
        self.in_batch_accuracy.update_state(ops.cast(ops.equal(nearest, own), "float32"), sample_weight)
        return self.get_metrics_result()

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}
