"""Warnings point at the line of the user's program, whatever of the package is between."""

import pytest
import tiny

from tfxformer import tasks
from tfxformer.arguments.notices import TfxformerWarning
from tfxformer.text import Tokenizer


def test_a_warning_points_at_the_users_line():
    said = {"generation_config": {"guidance_scale": 1.5}}
    lm = tasks.CausalLM(tiny.backbone("llama"), tokenizer=Tokenizer.characters("abcdef "))
    # The second is a method that `keywords.checked` stands in front of.
    for warns in (lambda: tasks.CausalLM(tiny.backbone("llama"), **said), lambda: lm.stream("abc", 2, **said)):
        with pytest.warns(TfxformerWarning, match=r"guidance_scale=1\.5") as caught:
            warns()
        assert [one.filename for one in caught] == [__file__]
