"""The runtimes that `encoder.py` compares, and the files they run."""
