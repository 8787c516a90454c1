"""Tiny decoders of both frameworks."""

from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="session")
def decoder(tiny_tokenizer):
    """A function from a stored checkpoint's name to our model, read once."""
    from tfxformer import tasks

    known = {}

    def get(name):
        if name not in known:
            known[name] = tasks.CausalLM.from_pretrained(FIXTURES / name, tokenizer=tiny_tokenizer)
        return known[name]

    return get


@pytest.fixture(scope="session")
def reference():
    """A function from a stored checkpoint's name to the model of transformers."""

    def get(name):
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(FIXTURES / name)
        model.generation_config.eos_token_id = None
        return model

    return get
