"""SentencePiece's model files, and the families whose tokenizers are made of them, as `tokenizers` backends."""
