"""Generation from texts: the ids of `generation` in words, stops, streaming, chats."""

import itertools

import numpy as np
import pytest
import tiny

import tfxformer
from tfxformer import generation, tasks
from tfxformer.models import NormConfig, StackConfig, TransformerConfig
from tfxformer.tasks.base import generating
from tfxformer.text import Tokenizer
from tfxformer.text.generation.streaming import Writer

pytestmark = pytest.mark.usefixtures("traced")  # a loop is one graph
BPE = Tokenizer.train_byte_level_bpe([*tiny.TEXTS, "naïve café 你好"], 280)
PROMPTS = ["the cat sat on the", "who", "é good film"]
RANDOM = generation.Random(temperature=1.5)


@pytest.fixture(scope="module")
def model():
    stack = StackConfig(
        1, 32, 4, 48, NormConfig("pre", embedding=False, final=True), max_positions=64, dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    config = TransformerConfig("gpt2", BPE.vocabulary_size, decoder=stack)
    return tiny.perturb(tasks.CausalLM(tfxformer.build(config), tokenizer=BPE))


def generate(model, prompts, count=24, **options):
    return model.generate(prompts, count, sampler=RANDOM, seed=1, jit_compile=False, **options)


@pytest.fixture(scope="module")
def ids(model):
    """What generation draws for `PROMPTS`, without any stop."""
    return generation.generate(model, BPE.ids(PROMPTS), 24, sampler=RANDOM, seed=1, jit_compile=False)


def test_texts_are_the_new_ids_up_to_the_end_token(model, ids):
    texts = generate(model, PROMPTS)
    ended = [list(itertools.takewhile(lambda index: index != BPE.eos_id, row)) for row in ids]
    assert texts == BPE.decode(ended)
    assert generate(model, BPE.ids(PROMPTS)) == texts
    assert generate(model, [np.array(row) for row in BPE.ids(PROMPTS)]) == texts


def test_several_continuations_follow_each_other(model):
    texts = generate(model, PROMPTS[:2], num_return_sequences=3)
    wanted = generation.generate(
        model, BPE.ids(PROMPTS[:2]), 24, sampler=RANDOM, seed=1, num_return_sequences=3, stop_ids=[BPE.eos_id],
        jit_compile=False,
    )  # fmt: skip
    assert len(set(texts)) == 6 and texts == BPE.decode(wanted)


@pytest.mark.parametrize(
    "numbers", [{"temperature": 1.5}, {"top_k": 9, "temperature": 3.0, "min_p": 0.01}, {"top_p": 0.9}]
)
def test_numbers_draw_as_the_sampler_of_them(model, numbers):
    options = {"seed": 1, "jit_compile": False}
    wanted = model.generate(PROMPTS, 12, sampler=generation.Filtered(**numbers), **options)
    assert model.generate(PROMPTS, 12, **numbers, **options) == wanted
    assert "".join(model.stream(PROMPTS[0], 12, **numbers, **options)) == wanted[0]
    assert wanted != model.generate(PROMPTS, 12, temperature=0, **options) == model.generate(PROMPTS, 12, **options)


def test_numbers_are_checked_and_stand_alone(model):
    for options, message in (
        ({"temperature": 0.8, "sampler": RANDOM}, "sampler and temperature both say how tokens are chosen"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"temperature": 0, "top_k": 5}, "top_k draw tokens by chance, and temperature=0 takes the most probable"),
    ):
        for call in (model.generate, model.stream):
            with pytest.raises(ValueError, match=message):
                call(PROMPTS if call == model.generate else PROMPTS[0], 4, **options)


def before(text, stops):
    """A text up to the stop that is whole first."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


def test_the_text_ends_before_the_first_stop(model):
    whole = generate(model, PROMPTS)
    longest = max(whole, key=len)
    stops = [longest[9:11], longest[14]]
    cut = [before(text, stops) for text in whole]
    assert cut != whole and generate(model, PROMPTS, stop=stops) == cut
    options = {"sampler": generation.Beams(2), "jit_compile": False}
    (text,) = model.generate(PROMPTS[:1], 12, **options)
    assert len(text) > 4 and model.generate(PROMPTS[:1], 12, stop=text[3], **options) == [before(text, text[3])]


def test_stops_may_be_tokens(model, ids):
    special = "<|endoftext|>"
    assert generating.read_stops(BPE, [special, "ab", 7]) == generating.Stops((BPE.eos_id, 7), ("ab",))
    first = ids[0][3]
    assert generate(model, PROMPTS[:1], stop=first) == BPE.decode([ids[0][: ids[0].index(first)]])


@pytest.mark.parametrize("stop", [None, ["a", "e "]])
def test_streams_are_the_same_text_in_whole_characters(model, stop):
    wanted = generate(model, PROMPTS, stop=stop)
    for prompt, text in zip(PROMPTS, wanted, strict=True):
        # Alone a row draws as the first row of a batch does.
        alone = generate(model, [prompt], stop=stop)[0]
        pieces = list(model.stream(prompt, 24, sampler=RANDOM, seed=1, stop=stop, piece_length=1, jit_compile=False))
        assert "".join(pieces) == alone and all(pieces)
        assert prompt != PROMPTS[0] or alone == text
        assert stop is not None or len(pieces) > 3


def test_half_characters_wait():
    text = "naïve 你好"
    writer = Writer(BPE, BPE.ids(["a"])[0], generating.Stops((), ()))
    pieces = [writer.feed([index]) for index in BPE.ids([text])[0]]
    assert "".join(pieces) + writer.end() == text
    assert not any("\ufffd" in piece for piece in pieces) and "" in pieces


def test_a_first_word_keeps_its_space():
    tokens = ["<unk>", "▁the", "▁cat", "s"]
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    backend = tokenizers.Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = Tokenizer(backend.to_str())
    for new, text in (([2, 3], " cats"), ([3], "s")):
        writer = Writer(tokenizer, [1], generating.Stops((), ()))
        assert writer.feed(new) + writer.end() == text


def test_prompts_begin_as_the_tokenizer_says():
    assert generating.read_prompts(BPE, ["who", ""]) == [BPE.ids(["who"])[0], [BPE.bos_id]]
    from tokenizers import processors

    ending = Tokenizer.from_json(BPE.to_json())
    ending._backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", BPE.eos_id)]
    )
    assert generating.read_prompts(ending, ["who"]) == [[BPE.bos_id, *BPE.ids(["who"])[0]]]


def test_chat_renders_and_continues(model):
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    messages = [{"role": "user", "content": "good film"}]
    rendered = "<user>good film<assistant>"
    assert model.chat_prompt(messages, template=template) == BPE.ids([rendered], special_tokens=False)[0]
    options = {"sampler": RANDOM, "seed": 1, "jit_compile": False}
    said = model.chat(messages, 12, template=template, **options)
    assert said == model.generate([rendered], 12, **options)[0]
    numbers = {"temperature": RANDOM.temperature, "seed": 1, "jit_compile": False}
    assert said == model.chat(messages, 12, template=template, **numbers)
    with pytest.raises(ValueError, match="no chat template"):
        model.chat(messages)


LETTERS = Tokenizer.characters("abcdefghijklmnopqrstuvwxyz ")


@pytest.mark.parametrize(
    ("tokenizer", "prompts", "options", "error", "message"),
    [
        (BPE, "who", {}, TypeError, r"pass \[prompts\]"),
        (BPE, [], {}, ValueError, "no prompt"),
        (BPE, [[]], {}, ValueError, "[Pp]rompt 0"),
        (LETTERS, ["who", ""], {}, ValueError, r"prompts\[1\] is empty, and the tokenizer has no begin token"),
        (None, ["who"], {}, ValueError, "no tokenizer"),
        (BPE, ["who " * 40], {}, ValueError, "the model's context is 64"),
        (BPE, ["who"], {"stop": [""]}, ValueError, "stop string is empty"),
        (LETTERS, ["who"], {"stop": ["a!"]}, ValueError, "'a!' is unknown to the tokenizer"),
        (BPE, ["who"], {"stop": [400]}, ValueError, "stop_ids has the id 400"),
        (BPE, ["who"], {"stop": [0.5]}, TypeError, "stop holds 0.5: wanted strings"),
        (BPE, ["who"], {"sampler": "greedy"}, TypeError, "needs a sampler"),
    ],
)
def test_bad_input(model, tokenizer, prompts, options, error, message):
    before, model.tokenizer = model.tokenizer, tokenizer
    try:
        with pytest.raises(error, match=message):
            model.generate(prompts, 8, jit_compile=False, **options)
    finally:
        model.tokenizer = before


def test_a_chat_needs_an_end_token(model):
    before, model.tokenizer = model.tokenizer, LETTERS
    try:
        with pytest.raises(ValueError, match="no end token"):
            model.chat([{"role": "user", "content": "good"}], template="{{ messages[0]['content'] }}")
    finally:
        model.tokenizer = before
