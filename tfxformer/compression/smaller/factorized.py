"""A token table of low rank: two small matrices in the place of a large one."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from tfxformer.compression.smaller.rebuilding import backbone_of, rebuild


def factorize_embeddings(model, rank: int):
    """A model whose token table [V, D] is a product [V, E] x [E, D], the best of its rank: a truncated SVD.

    Of a small encoder the token table is most of the file; with E a quarter of D it is a quarter (ALBERT's
    factorization, Lan et al., 2019, arXiv:1909.11942, section 3.1, of a model that is trained already). The stream
    keeps its width D, so nothing else changes; logits of a tied head go through the same two matrices. Trained tables
    are far from low rank: of MiniLM's (30,522 x 384) rank 192 holds 79 % of the squared norm, rank 96 57 %. So train
    afterwards: `fit`, or a `Distiller` with the whole model as teacher.

    To cut D itself would touch every norm of every layer, whose means and variances run over it: no smaller model
    equals the big one with some of these channels at zero.

    Args:
        model: a task of ours, or a bare encoder or decoder; it stays as it is.
        rank: int E, 1 to the width of the table - 1; it saves weights below V D / (V + D), a little less than D.

    Returns:
        A new model of the same class, not compiled. Its outputs are those of `model` with the table's best
        approximation of that rank in its place. It is saved by `save("model.keras")` and exported as any; transformers
        has no such model, so `save_pretrained` refuses it.

    Raises:
        TypeError: for a model that is not ours, and a rank that is no int. ValueError: for a rank that is not below the
            width, a table that is a product already, and a model with two.
    """
    backbone = backbone_of(model)
    config = backbone.config
    if isinstance(rank, bool) or not isinstance(rank, Integral):
        raise TypeError(f"factorize_embeddings: rank is an int, the width of the smaller table; got {rank!r}.")
    if config.source_vocabulary_size is not None:
        raise ValueError("factorize_embeddings: this model has a token table for sources and one for targets, not one.")
    if config.token_table_rank is not None:
        raise ValueError(
            f"factorize_embeddings: this model's token table has rank {config.token_table_rank} already; factorize the "
            "model that it was made of."
        )
    if not 1 <= rank < config.table_size:
        raise ValueError(
            f"factorize_embeddings: rank={rank} must be 1 to {config.table_size - 1}, below the table's width "
            f"{config.table_size}."
        )
    vectors, projection = best_factors(np.asarray(backbone.token_embedding.embeddings.value, "float32"), int(rank))
    values = {"token_embedding/embeddings": vectors, "token_embedding/projection": projection}
    return rebuild(model, config.replace(token_table_rank=int(rank)), {}, values=values)


def best_factors(table: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The two factors [V, E] and [E, D] whose product is nearest to a table [V, D] (Eckart and Young, 1936).

    The rows of the second are orthonormal: the first has the table's own scale. They are eigenvectors of table' table,
    [D, D], since V is large.
    """
    table = table.astype("float64")
    _, directions = np.linalg.eigh(table.T @ table)  # ascending
    projection = directions[:, ::-1][:, :rank].T
    return (table @ projection.T).astype("float32"), projection.astype("float32")
