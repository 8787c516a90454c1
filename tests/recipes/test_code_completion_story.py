"""applications/code_completion: its corpus and n-grams, and the whole story on a few modules."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import story_modules

from tfxformer.text import Tokenizer

SOURCE = "def add(first, second):\n    # a comment of some length\n    return first + second  # sum\n\nx = 1\n"


@pytest.fixture(scope="module")
def story():
    with story_modules.imported("code_completion", "corpus", "ngram", "run", "complete") as modules:
        yield modules


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train_byte_level_bpe([SOURCE], 280)


def test_modules_are_read_without_tests_and_held_out_whole(story, tmp_path):
    for name in ("abc.py", "json/__init__.py", "json/tool.py", "test/test_abc.py", "json/tests/test_tool.py", "zip.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    (tmp_path / "zip.py").write_text("\n")  # says nothing
    found = story["corpus"].modules(tmp_path)
    assert found == {"abc.py": ["# abc.py\n"], "json": ["# json/__init__.py\n", "# json/tool.py\n"]}
    many = {f"{index}.py": [str(index)] for index in range(20)}
    learned, held_out, names = story["corpus"].split(many, 0.1, seed=0)
    assert len(names) == 2 and [f"{text}.py" for text in held_out] == sorted(names, key=list(many).index)
    assert sorted(learned + held_out) == sorted(text for texts in many.values() for text in texts)


def test_halves_of_lines_are_the_lines(story, tokenizer):
    lines = story["corpus"].halves([SOURCE], tokenizer, 10, seed=0, before=64)
    texts = [tokenizer.decode([line.ids])[0] + line.rest for line in lines]
    assert sorted(texts) == [SOURCE[: SOURCE.index("\n")], SOURCE[: SOURCE.index("\n\n")]]  # no comment, none short
    assert all(line.rest for line in lines)
    (short,) = story["corpus"].halves([SOURCE], tokenizer, 1, seed=0, before=5)
    assert len(short.ids) == 5


def by_definition(ids, context, token, size, order):
    """Interpolated Kneser-Ney of n-grams as tuples, by its recursion: P(token | the last size - 1 of context)."""
    if size == 0:
        return 1 / V
    grams = [tuple(ids[at : at + order]) for at in range(len(ids) - order + 1)]
    counts = Counter(grams)
    for _ in range(order - size):  # how many tokens stand before
        counts = Counter(gram[1:] for gram in counts)
    n1, n2 = (sum(count == often for count in counts.values()) for often in (1, 2))
    discount = n1 / max(1, n1 + 2 * n2)
    before = tuple(context[len(context) - size + 1 :])
    following = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == before}
    lower = by_definition(ids, context, token, size - 1, order)
    if not following:
        return lower
    total = sum(following.values())
    return (max(following.get(token, 0) - discount, 0) + discount * len(following) * lower) / total


V = 6


def test_probabilities_are_kneser_neys(story):
    generator = np.random.default_rng(0)
    ids = np.where(generator.random(200) < 0.6, np.arange(200) % 4, generator.integers(0, V, 200)).astype("int32")
    counted = story["ngram"].KneserNey(ids, V, order=3)
    contexts = generator.integers(0, V, (8, 2))
    for context in contexts:
        found = counted.probabilities(np.tile(context, (V, 1)), np.arange(V))
        wanted = [by_definition(ids.tolist(), context.tolist(), token, 3, 3) for token in range(V)]
        np.testing.assert_allclose(found, wanted)
        assert found.sum() == pytest.approx(1)
    text = generator.integers(0, V, 12)
    rows = np.array([[-1, text[0]], *np.stack([text[:-2], text[1:-1]], 1)])
    assert counted.nats(text) == pytest.approx(-np.log(counted.probabilities(rows, text[1:])).mean())
    with pytest.raises(ValueError, match="63 bits"):
        story["ngram"].KneserNey(ids, 50_000, order=5)


def test_the_likeliest_tokens_follow(story):
    ids = np.concatenate([np.tile([0, 1, 2, 3, 4], 20), np.random.default_rng(0).integers(0, V, 60)])
    counted = story["ngram"].KneserNey(ids, V, order=3)
    assert counted.complete([[0, 1], [2, 3], [1, 2]], ends={4}, most=5) == [[2, 3], [], [3]]
    assert counted.complete([[0, 1], [5, 5, 1, 2]], ends=set(), most=4) == [[2, 3, 4, 0], [3, 4, 0, 1]]


def test_ends_and_exact_lines(story, tokenizer):
    ends = story["run"].line_ends(tokenizer)
    ids = tokenizer.ids(["x = 1\n"], special_tokens=False)[0]
    assert ids[-1] in ends and tokenizer.eos_id in ends and not ends & set(ids[:-1])
    lines = [story["corpus"].Half([1], rest) for rest in ("a)", "b: ", "c")]
    assert story["run"].exact(["a)", "b:", "cc"], lines) == pytest.approx(2 / 3)
    letters = "".join(map(chr, np.random.default_rng(0).integers(97, 123, 4000)))  # log2(26) = 4.70 bits each
    assert 4.7 < story["run"].compressed_bits([SOURCE], [letters]) < 5.5
    assert story["run"].compressed_bits([letters], [letters]) < 0.2


@pytest.mark.road
def test_the_whole_story_on_a_few_modules(story, tmp_path):
    run = story["run"]
    settings = replace(run.QUICK, modules=8, steps=10, lines=4, vocabulary_size=320, layers=1, width=32)
    results = json.loads(json.dumps(run.run(tmp_path, settings, verbose=0)))
    bits = {name: one.get("bits_per_byte", 0) for name, one in results["variants"].items()}
    assert 0 < bits["Kneser-Ney, 5-grams"] < bits["GPT, Keras"] < 8  # it has read but a few steps
    page = run.section(results)
    assert all(name in page for name in bits) and results["modules_held_out"][0] in page
    generator = story["complete"].LiteRTGenerator(tmp_path / run.FILE)
    text = "import os\n\ndef main():\n    return os."
    written = story["complete"].completed(generator, text, lines=2)
    room = generator.cache_length - 2 * story["corpus"].LONGEST
    ids = generator.tokenizer.ids([text], special_tokens=False)[0][-room:]
    whole = generator.generate(ids, 2 * story["corpus"].LONGEST)
    assert whole.startswith(written) and written.count("\n") <= 1
    with pytest.raises(ValueError, match="do not fit"):
        story["complete"].completed(generator, text, lines=9)
