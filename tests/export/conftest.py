"""Fixtures of the export tests."""

from litert_fixtures import classifier, plain_model, tokenizer

__all__ = ["classifier", "plain_model", "tokenizer"]
