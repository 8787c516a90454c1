"""How a checkpoint wants tokens drawn, as a sampler."""

from __future__ import annotations

from tfxformer.generation.beams import Beams
from tfxformer.generation.samplers import Filtered, Greedy, Sampler
from tfxformer.text.generation.settings import GenerationConfig


def checkpoint_sampler(settings: GenerationConfig) -> Sampler | Beams:
    """How a checkpoint wants tokens drawn, as transformers reads it.

    Raises:
        ValueError: for a way to draw that there is no sampler for.
    """
    if not settings.do_sample or settings.temperature == 0:
        if settings.num_beams == 1:
            return Greedy()
        return Beams(settings.num_beams, settings.length_penalty, settings.early_stopping)
    if settings.num_beams != 1:
        raise ValueError(
            f"The checkpoint draws by chance within a search of {settings.num_beams} beams, for which there is no "
            "sampler: choose one of yours."
        )
    return Filtered(**settings.sampling())
