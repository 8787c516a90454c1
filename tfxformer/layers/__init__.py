"""Keras layers that every model is made of, and the pure functions under them."""

from tfxformer.backend import needs_keras

needs_keras("tfxformer.layers")

from tfxformer.layers.activations import ACTIVATIONS, activation
from tfxformer.layers.attention.attention import Attention
from tfxformer.layers.attention.cache import Cache, Ring, empty_cache
from tfxformer.layers.attention.masks import padding_bias
from tfxformer.layers.attention.position_scores import PositionScores, Scores
from tfxformer.layers.attention.positions import PositionEmbedding
from tfxformer.layers.attention.rotary import Rotary, RotaryPositions
from tfxformer.layers.blocks.block import TransformerBlock
from tfxformer.layers.dense import Dense
from tfxformer.layers.embeddings import ConstantSegmentEmbedding, EmbeddingConvolution, TokenEmbedding
from tfxformer.layers.feed_forward import FeedForward
from tfxformer.layers.kernels.dropout import Dropout, drop_path, dropout
from tfxformer.layers.kernels.fused_attention import use_fused_attention
from tfxformer.layers.mixers.convolution import CausalConvolution, Mixer, ShortConvolution
from tfxformer.layers.mixers.delta_rule import GatedDeltaRule
from tfxformer.layers.normalization import LayerNormalization, RMSNormalization
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm

__all__ = [
    "ACTIVATIONS",
    "DEFAULT",
    "Attention",
    "Cache",
    "CausalConvolution",
    "ConstantSegmentEmbedding",
    "Dense",
    "Dropout",
    "EmbeddingConvolution",
    "FeedForward",
    "GatedDeltaRule",
    "GraphForm",
    "LayerNormalization",
    "Mixer",
    "PositionEmbedding",
    "PositionScores",
    "RMSNormalization",
    "Ring",
    "Rotary",
    "RotaryPositions",
    "Scores",
    "ShortConvolution",
    "TokenEmbedding",
    "TransformerBlock",
    "activation",
    "drop_path",
    "dropout",
    "empty_cache",
    "padding_bias",
    "use_fused_attention",
]
