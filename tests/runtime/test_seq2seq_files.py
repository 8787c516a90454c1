"""LiteRTGenerator on the file of an encoder-decoder: texts, streams, beams and scores, each against Keras."""

import dataclasses

import litert_files
import numpy as np
import pytest

from tfxformer import export, generation
from tfxformer.generation.beams import beam_search
from tfxformer.runtime.generation.beam_search import BeamSearch

TEXTS = ["good film", "What a BAD film, the meeting is at 10:30.", "nobody answered"]
NEW = 12


@pytest.fixture(scope="module")
def model():
    return litert_files.seq2seq_model()


@pytest.fixture
def generator():
    return export.LiteRTGenerator(litert_files.exported_seq2seq()[0], num_threads=1)


def test_what_the_file_says(model, generator):
    assert generator.source_lengths == litert_files.SOURCE_LENGTHS
    assert generator.cache_length == litert_files.TARGET
    assert generator.prefill_lengths == ()
    assert generator.tokenizer == model.tokenizer


def test_texts_are_those_of_keras(model, generator):
    wanted = model.generate(TEXTS, NEW, jit_compile=False)
    assert generator.generate(TEXTS, NEW) == wanted
    assert [generator.generate(text, NEW) for text in reversed(TEXTS)] == wanted[::-1]  # what was read before is gone
    pieces = list(generator.stream(TEXTS[1], NEW))
    assert "".join(pieces) == wanted[1]
    assert len(pieces) > 1


def test_the_rules_of_a_checkpoint_count(model, generator):
    plain = generator.generate_ids(model.tokenizer.ids(TEXTS[:1])[0], NEW)
    settings = dataclasses.replace(
        generator.generation_config, forced_bos_token_id=9, no_repeat_ngram_size=1, suppress_tokens=(plain[1],)
    )
    generator.generation_config = settings
    source = model.encode(TEXTS[:1])
    wanted = generation.generate(
        model, [[model.decoder_start_token_id]], NEW, source=source, processors=(settings.rules,), jit_compile=False
    )
    found = generator.generate_ids(model.tokenizer.ids(TEXTS[:1])[0], NEW)
    assert found == wanted[0]
    assert found[0] == 9
    assert len(set(found)) == NEW


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, -1.0, 2.0])
def test_beams_are_those_of_keras(model, generator, length_penalty, early_stopping):
    """Ids and scores of all four; ends that come often, so that some texts finish early."""
    ids = model.tokenizer.ids(TEXTS[1:2])[0]
    ends = tuple(range(0, 300, 7))[:5]
    wanted = beam_search(
        model, [[model.decoder_start_token_id]], NEW, source=model.encode(TEXTS[1:2]), stop_ids=ends,
        beams=generation.Beams(4, length_penalty, early_stopping), num_return_sequences=4, jit_compile=False,
    )  # fmt: skip
    steps = [generator.steps() for _ in range(4)]
    steps[0].encode(ids)
    written = [model.decoder_start_token_id]
    found = BeamSearch(4, length_penalty, early_stopping).run(steps, written, 1 + NEW, ends)
    kept = [beam for beam in wanted if beam.ids]
    np.testing.assert_allclose([beam.score for beam in found], [beam.score for beam in kept], rtol=1e-4)
    assert [beam.ids for beam in found] == [b.ids[:-1] if b.ids[-1] in ends else b.ids for b in kept]


def test_the_text_of_the_best_beam(model, generator):
    wanted = model.generate(TEXTS, NEW, sampler=generation.Beams(3), jit_compile=False)
    assert generator.generate(TEXTS, NEW, num_beams=3) == wanted
    with pytest.raises(ValueError, match="num_beams=3 searches for the target with the highest score: it leaves no"):
        generator.generate(TEXTS[0], NEW, num_beams=3, temperature=0.5)
    with pytest.raises(ValueError, match="the file has no encoder"):
        export.LiteRTGenerator(litert_files.decoder()).generate("good", num_beams=3)


def test_scores_are_those_of_keras(model, generator):
    targets = ["bad film", "good", "who paid for it"]
    np.testing.assert_allclose(generator.score(TEXTS, targets), model.score(TEXTS, targets), rtol=1e-4)


def test_what_it_refuses(generator):
    with pytest.raises(ValueError, match=r"The source is empty: give a text of one token"):
        generator.generate("  ")
    with pytest.raises(ValueError, match=r"The source has \d+ tokens, the file reads 40: shorten it, or export with"):
        generator.generate("good film " * 40)
    with pytest.raises(ValueError, match="3 sources but 1 targets: give each source its target"):
        generator.score(TEXTS, ["good"])
    with pytest.raises(ValueError, match="no chat template"):
        generator.chat([{"role": "user", "content": "good"}])
    with pytest.raises(ValueError, match="LiteRTGenerator"):
        export.LiteRTModel(litert_files.exported_seq2seq()[0])
