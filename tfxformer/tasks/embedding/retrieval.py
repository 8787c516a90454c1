"""What an embedder's vectors are for: similarity and search."""

from __future__ import annotations

import numpy as np

from tfxformer.arguments import notices
from tfxformer.checkpoints.sentence_transformers import similarity_of
from tfxformer.data.retrieval import Found, nearest, similarities
from tfxformer.text.inputs import as_texts

QUERY, DOCUMENT = "query", "document"  # prompts that every embedder has, be they empty
_OTHER_NAMES = (
    "passage",
    "corpus",
)  # of the second, which sentence-transformers passes over, since the second is there


class Retrieval:
    """Search by an embedder: of a class with `predict`, `prompts` and `described_by` as `TextEmbedder` has them."""

    def similarity(self, first, second, *, kind: str | None = None) -> np.ndarray:
        """How near texts or vectors are to each other: float32 [A, B], higher is nearer.

        Args:
            first, second: list of texts, embedded as they are (with the default prompt), or vectors [A, D] and [B, D].
            kind: "cosine", "dot", or the negative distance "euclidean" or "manhattan"; None for what the folder of
                sentence-transformers says, which is mostly "cosine".

        Raises:
            ValueError: for an unknown kind, and for vectors of different widths.
        """
        first, second = (self._vectors(given, None, None, None)[0] for given in (first, second))
        return similarities(first, second, kind or similarity_of(self.described_by))

    def search(
        self, queries, documents, top_k: int = 10, *, kind: str | None = None, batch_size: int | None = None, verbose=0
    ) -> list[list[Found]]:
        """The documents nearest to each query, the nearest first.

        `embedder.search(["how do I reset it?"], documents)[0][0].text`

        Args:
            queries: list of texts, or vectors [A, D]; texts get the model's prompt "query".
            documents: list of texts, or vectors [B, D] that `predict(texts, prompt_name="document")` made once; texts
                get the prompt "document". Where a model has one called "passage" or "corpus" in its place, it is not
                taken, as in sentence-transformers, and a warning says so.
            top_k: int, documents of a query.
            kind: as `similarity` has it.
            batch_size, verbose: of `predict`.

        Returns:
            for each query a list of `data.retrieval.Found`: index, score and text of a document.

        Raises:
            ValueError: for a single text in place of a list, and as `similarity`.
        """
        (asked, _), (searched, texts) = (
            self._vectors(given, name, batch_size, verbose) for given, name in ((queries, QUERY), (documents, DOCUMENT))
        )
        if texts is not None:
            self._say_what_is_passed_over()
        return nearest(asked, searched, top_k, kind or similarity_of(self.described_by), texts)

    def _say_what_is_passed_over(self) -> None:
        said = self.prompts.texts
        for name in _OTHER_NAMES:
            if said.get(name) and not said[DOCUMENT]:
                notices.warn(
                    f"search embeds documents with the prompt {DOCUMENT!r}, which is empty here, and not with the "
                    f"model's {name!r} ({said[name]!r}), as sentence-transformers does. If it was trained with that: "
                    f"search(queries, embedder.predict(documents, prompt_name={name!r}))."
                )

    def _vectors(self, given, prompt_name: str | None, batch_size: int | None, verbose) -> tuple:
        """(vectors [N, D], the texts or None) of what may be either."""
        if hasattr(given, "shape") and len(given.shape) == 2:
            return np.asarray(given, "float32"), None
        texts = as_texts(given)
        return self.predict(texts, batch_size, prompt_name=prompt_name, verbose=verbose or 0), texts
