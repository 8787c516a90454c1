"""The files that weights come in: safetensors, GGUF, where they are fetched, what is refused."""
