"""Small Android and iOS projects around a LiteRT file, with what Python answers beside it."""
