"""Sequence-level distillation: a student of texts learns to write what its teacher writes."""

from __future__ import annotations

from collections.abc import Sequence


def teacher_targets(
    teacher, sources: Sequence[str], sampler, *, max_new_tokens: int | None = None, batch_size=32, verbose="auto"
) -> list[str]:
    """What a teacher writes for each source: the targets that a student is fitted on in place of the true ones.

    So a small model of texts learns best, and then writes as well greedily as its teacher by beams (Kim & Rush, 2016,
    arXiv:1606.07947): what a teacher writes has fewer forms than what people write. It is done once, and what it
    gives are texts like any, to be kept in a file; a `Distiller` on them adds the teacher's probabilities.

    Args:
        teacher: a task that writes: `tasks.Seq2SeqLM`, or a `tasks.CausalLM` that answers prompts.
        sources: list of str, those of the training set.
        sampler: how it writes them, such as `generation.Beams(5)`, which is the paper's; None for greedily.
        max_new_tokens: int; None for what the teacher's checkpoint says, else 128.
        batch_size: int, sources of a batch.
        verbose: 0 silent, 1 or "auto" for a progress bar.

    Returns:
        list of str, one for each source, without special tokens.

    Raises:
        TypeError: for a teacher that does not write.

    Example:
        targets = compression.teacher_targets(teacher, sources, generation.Beams(5))
        student = compression.student_from(teacher, keep=2, stack="decoder")
        student.fit(sources, targets, epochs=3)
    """
    if not hasattr(teacher, "read_prompts"):
        raise TypeError(
            f"teacher_targets asks a task that writes texts, a Seq2SeqLM or a CausalLM; {type(teacher).__name__} "
            "writes none. A Distiller takes what any other teacher answers."
        )
    return teacher.generate(sources, max_new_tokens, sampler=sampler, batch_size=batch_size, verbose=verbose)
