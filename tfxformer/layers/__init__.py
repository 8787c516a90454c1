"""Keras layers that every model is made of, and the pure functions under them."""

from tfxformer.layers.activations import ACTIVATIONS, activation
from tfxformer.layers.attention import Attention
from tfxformer.layers.dense import Dense
from tfxformer.layers.dropout import Dropout, drop_path, dropout
from tfxformer.layers.embeddings import ConstantSegmentEmbedding, TokenEmbedding
from tfxformer.layers.encoder_block import EncoderBlock
from tfxformer.layers.equalization import equalized
from tfxformer.layers.feed_forward import FeedForward
from tfxformer.layers.masks import padding_bias
from tfxformer.layers.normalization import LayerNormalization
from tfxformer.layers.numerics import DEFAULT, Numerics
from tfxformer.layers.positions import PositionEmbedding

__all__ = [
    "ACTIVATIONS",
    "DEFAULT",
    "Attention",
    "ConstantSegmentEmbedding",
    "Dense",
    "Dropout",
    "EncoderBlock",
    "FeedForward",
    "LayerNormalization",
    "Numerics",
    "PositionEmbedding",
    "TokenEmbedding",
    "activation",
    "drop_path",
    "dropout",
    "equalized",
    "padding_bias",
]
