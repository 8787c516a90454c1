"""Sources continued by an encoder-decoder, against transformers' generate."""

import dataclasses

import numpy as np
import pytest
import seq2seq_cases as cases

from tfxformer import generation, tasks
from tfxformer.generation.beams import beam_search

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore:.*has no tokenizer files")]
NEW, END = 10, 2
RULES = (
    {},
    {"min_new_tokens": 6},
    {"min_length": 8},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[5], [7, 8]], "suppress_tokens": [11]},
    {"forced_bos_token_id": 9},
    {"forced_eos_token_id": END, "begin_suppress_tokens": [4, 20]},
    {"forced_bos_token_id": 0, "forced_eos_token_id": END, "no_repeat_ngram_size": 3, "min_length": 5},
    {"exponential_decay_length_penalty": [3, 1.4]},
)
BEAMS = (None, {"num_beams": 3}, {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True})
SETTINGS = [  # 30, of which every change is compared by each rule once, and each way of searching three times
    pytest.param(rules, beams, marks=[] if number % len(BEAMS) == place else [pytest.mark.slow])
    for number, rules in enumerate(RULES)
    for place, beams in enumerate(BEAMS)
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            model, folder = cases.reference(name), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = tasks.Seq2SeqLM.from_pretrained(folder), model
        return made[name]

    return get


def until_end(row):
    return row[: row.index(END) + 1] if END in row else row


def theirs(model, source, rules, beams):
    import torch

    settings = {**rules, **(beams or {}), "max_new_tokens": NEW, "do_sample": False}
    with torch.inference_mode():
        found = model.generate(**cases.tensors(source), **settings, output_scores=True, return_dict_in_generate=True)
    scores = None if beams is None else found.sequences_scores.numpy()
    return [until_end(row[1:]) for row in found.sequences.tolist()], scores


@pytest.mark.parametrize(("rules", "beams"), SETTINGS)
def test_equals_transformers(rules, beams, pair):
    lm, model = pair("bart")
    model.generation_config.forced_eos_token_id = None
    batch = cases.batch(1)
    source = {name: batch[name] for name in ("encoder_token_ids", "encoder_padding_mask")}
    wanted, wanted_scores = theirs(model, source, rules, beams)
    settings = dataclasses.replace(generation.GenerationConfig.from_dict(rules), eos_token_id=(END,))
    arguments = {
        "source": source,
        "stop_ids": (END,),
        "processors": () if settings.rules.change_nothing else (settings.rules,),
        "jit_compile": False,
    }
    start = [[lm.decoder_start_token_id]] * 3
    if beams is None:
        assert generation.generate(lm, start, NEW, **arguments) == wanted
        return
    found = beam_search(lm, start, NEW, beams=generation.Beams(**beams), **arguments)
    assert [beam.ids for beam in found] == wanted
    np.testing.assert_allclose([beam.score for beam in found], wanted_scores, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "jit"),
    [
        *(("t5", True), ("mbart", False), ("marian-two-vocabularies", False), ("m2m_100", False)),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in cases.CASES if name not in ("bart", "t5")),
    ],
)
def test_every_page_by_beams(name, jit, pair):
    """Positions on the cache, start tokens and biases of each page; by XLA, as users run it, but for a few."""
    lm, model = pair(name)
    batch = cases.batch(lm.backbone.config.padding_id)
    source = {key: batch[key] for key in ("encoder_token_ids", "encoder_padding_mask")}
    rules = lm.generation_config.rules
    found = beam_search(
        lm,
        [[lm.decoder_start_token_id]] * 3,
        NEW,
        beams=generation.Beams(3),
        source=source,
        stop_ids=(END,),
        processors=() if rules.change_nothing else (rules,),
        jit_compile=jit,
    )
    assert [beam.ids for beam in found] == theirs(model, source, {}, {"num_beams": 3})[0]
