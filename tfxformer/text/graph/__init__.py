"""Tokenizers inside a TensorFlow graph, and the strings they are tried on."""
