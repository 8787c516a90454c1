"""LongRoPE turns the keys of a text by other angles once it is longer than trained: no key that was kept is right then.

Right: transformers' `Phi3ForCausalLM.generate` throws its cache away at that length and reads the text anew
(modeling_phi3.py, `prepare_inputs_for_generation`); Keras and files went on with the old keys, without a word.
"""

import numpy as np
import pytest
from language_cases import causal_lm, chat_tokenizer

from tfxformer import export, generation
from tfxformer.layers import Rotary

TRAINED = 24
LONG = Rotary(
    kind="longrope",
    factor=2.0,
    original_max_positions=TRAINED,
    short_factors=(1.0, 1.0, 2.0, 3.0),
    long_factors=(4.0,) * 4,
)
PROMPT = list(range(3, 23))


@pytest.fixture(scope="module")
def model():
    return causal_lm(tokenizer=chat_tokenizer(), decoder__attention__rotary=LONG)


def test_generation_ends_where_kept_keys_would_be_wrong(model):
    """Up to there the tokens are those that Keras finds without a cache."""
    (ids,) = generation.generate(model, [PROMPT], TRAINED - len(PROMPT), jit_compile=False)
    row = np.array([[*PROMPT, *ids]], "int32")
    logits = np.asarray(model({"token_ids": row, "padding_mask": np.ones_like(row)}))[0]
    assert logits[len(PROMPT) - 1 : -1].argmax(-1).tolist() == ids
    with pytest.raises(ValueError, match=r"20 tokens and 5 new ones: .* beyond 24 tokens by other angles \(LongRoPE\)"):
        model.generate([PROMPT], TRAINED - len(PROMPT) + 1)
    with pytest.raises(ValueError, match="the model's context is 24"):
        generation.generate(model, [PROMPT], TRAINED - len(PROMPT) + 1)


def test_no_file_keeps_more(model, tmp_path):
    with pytest.raises(ValueError, match=r"cache_length=25: .* beyond 24 tokens .* Take at most 24"):
        export.export_litert(model, tmp_path / "m.tflite", cache_length=TRAINED + 1)
