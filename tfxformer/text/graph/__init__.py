"""Tokenizers inside a TensorFlow graph, and the strings they are tried on."""

from tfxformer.extras import needs

needs("A tokenizer in the graph", "tensorflow")
