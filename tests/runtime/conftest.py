"""Fixtures of the tests of running and reading files."""

from litert_fixtures import classifier, plain_model, tokenizer

__all__ = ["classifier", "plain_model", "tokenizer"]
