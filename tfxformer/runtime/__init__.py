"""Running and reading LiteRT files, without TensorFlow and Keras."""
