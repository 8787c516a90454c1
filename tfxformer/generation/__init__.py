"""Generation on ids: samplers, beam search, speculation, and the compiled loop under them."""

from tfxformer.backend import needs_keras

needs_keras("tfxformer.generation")

from tfxformer.generation.beams import Beam, Beams, beam_search
from tfxformer.generation.generate import generate, stream
from tfxformer.generation.processors import RepetitionPenalty
from tfxformer.generation.samplers import Filtered, Greedy, MinP, Random, Sampler, TopK, TopP, Typical
from tfxformer.generation.speculative import DraftModel, PromptLookup, speculate
from tfxformer.text.generation.settings import GenerationConfig
from tfxformer.text.generation.token_rules import TokenRules

__all__ = [
    "Beam",
    "Beams",
    "DraftModel",
    "Filtered",
    "GenerationConfig",
    "Greedy",
    "MinP",
    "PromptLookup",
    "Random",
    "RepetitionPenalty",
    "Sampler",
    "TokenRules",
    "TopK",
    "TopP",
    "Typical",
    "beam_search",
    "generate",
    "speculate",
    "stream",
]
