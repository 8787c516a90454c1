"""Pages that `tfxformer page` writes, in a real headless Chromium: they answer as the same files do in Python.

Chromium and what drives it are npm packages. Name the folder where they are in TFXFORMER_BROWSER:
    cp tests/clients/browser/package.json FOLDER && npm install --prefix FOLDER
    TFXFORMER_BROWSER=FOLDER pytest tests/clients
"""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import litert_files
import numpy as np
import pytest
import tokenizers
from export_cases import TEXTS
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tfxformer import runtime
from tfxformer.data.targets.spans import encode_windows
from tfxformer.data.targets.words.windows import encode_word_windows
from tfxformer.numpy_ops import NUMPY
from tfxformer.runtime.page import check
from tfxformer.runtime.page.facts import tokenizer_facts
from tfxformer.text import Tokenizer
from tfxformer.text.generation.sampling import limited
from tfxformer.text.generation.token_rules import Rows, TokenRules

BROWSER = os.environ.get("TFXFORMER_BROWSER")
SCRIPT = Path(__file__).parent / "browser" / "browser.mjs"
# Accents, emoji, other scripts, words that the vocabulary lacks, none at all, and texts that are cut.
SAMPLES = [
    *TEXTS,
    "Ünïted the FILM é e\u0301, ΟΔΟΣ",
    "good 💚 film 今日 𠮷野 xyzzy",
    "[MASK] the film [SEP] good",
    "\tgood\u00a0 film\n ",
    "",
    " ".join(TEXTS) * 4,
]
PAIRS = [("good film", "bad film"), (TEXTS[2] * 3, "the office"), ("who", TEXTS[3] * 4), (TEXTS[2] * 3, TEXTS[3] * 4)]
QUESTIONS = [
    ("who walked?", TEXTS[2]),
    ("who é?", "Ünïted the café 今日 💚 e\u0301t\u00e9 (xyzzy) film. " + TEXTS[3]),
    ("the office", " ".join(TEXTS) * 5),
    ("nothing", ""),
]
CONTEXTS = [*check.TEXTS, *(context for _, context in QUESTIONS[:3])]
PROMPTS = ["good film", "The office é 💚", "a", " ".join(TEXTS)[:60]]
MESSAGES = [[{"role": "user", "content": "good é"}], [{"role": "user", "content": "a"}] * 2]
CALLS = {
    "predict": "(model, ...given) => model.predict(...given)",
    "threads": "() => crossOriginIsolated",
    "entities": "(model, text) => model.entities(text)",
    "answers": "(model, question, context) => model.answer(question, context, { nBest: 3 })",
    "generate": "(model, prompt, maxNewTokens) => model.generate(prompt, { maxNewTokens })",
    "ids": """async (model, prompt, maxNewTokens) => {
        const ids = [];
        const tokens = model.tokens(model.promptIds(prompt), model.settings.stop_ids, { maxNewTokens });
        for await (const id of tokens) ids.push(id);
        return ids;
    }""",
    "stops": """async (model, ids, stop) => {
        const { Writer } = await import("./lib/writer.js");
        const writer = new Writer(model.tokenizer, ids.slice(0, 1), [stop]);
        const pieces = ids.slice(1).map((id) => (writer.stopped ? "" : writer.feed(id)));
        return pieces.join("") + writer.end();
    }""",
    "windows": """async (model, content, facts, question, context, length) => {
        const [{ Tokenizer }, windows] = [await import("./lib/tokenizer.js"), await import("./lib/windows.js")];
        const tokenizer = new Tokenizer(content, facts);
        const rows = windows.contextWindows(tokenizer, question, context, length);
        const words = windows.wordWindows(tokenizer, context.split(" "), length);
        return [rows.map(({ ids, offsets }) => [ids, offsets]), words.map((row) => [row.ids, row.words])];
    }""",
    "rules": """async (model, logits, written, first, end, rules) => {
        const { applyRules } = await import("./lib/rules.js");
        return applyRules(logits, written, first, end, rules);
    }""",
    "draws": """async (model, logits, options, count) => {
        const { Sampler } = await import("./lib/sampling.js");
        const sampler = new Sampler(options);
        const counts = new Float64Array(logits.length);
        for (let i = 0; i < count; i += 1) counts[sampler.next(logits)] += 1;
        return counts.map((one) => one / count);
    }""",
}
RULES = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": ((7,), (3, 9)),
    "sequence_bias": (((2,), 1.5), ((3, 5), -2.0)),
    "min_new_tokens": 3,
    "suppress_tokens": (11,),
    "begin_suppress_tokens": (12, 13),
    "forced_eos_token_id": (1,),
    "exponential_decay_length_penalty": (1, 1.1),
    "eos_token_id": (1, 4),
}
WRITTEN = [[3], [2, 3], [3, 9, 3], [5, 3, 5, 3], [6, 7, 8, 3, 2, 6, 7]]
DRAWINGS = [
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 5},
    {"top_p": 0.7},
    {"temperature": 1.2, "top_k": 9, "top_p": 0.8, "min_p": 0.1},
]
DRAWS = 20000
SPECIAL = ["<s>", "</s>", "<pad>"]

pytestmark = [
    pytest.mark.client,
    pytest.mark.skipif(not BROWSER, reason="TFXFORMER_BROWSER names no folder with Chromium: see the docstring"),
    pytest.mark.skipif(not shutil.which("node"), reason="node, which drives the browser, is not installed"),
]


@pytest.fixture(scope="module")
def files():
    """A file of each kind."""
    return {
        "classify": litert_files.exported("dynamic_int8", 16, 48)[0],
        **{name: litert_files.other(name)[1] for name in ("tag", "embed", "answer", "fill_mask")},
        "write": litert_files.decoder(),
        "translate": litert_files.exported_seq2seq()[0],
    }


def calls(name, arguments):
    return [[CALLS[name], list(given)] for given in arguments]


def camel(options):
    return {"".join([first, *(part.title() for part in rest)]): value for (first, *rest), value in split(options)}


def split(options):
    return ((name.split("_"), value) for name, value in options.items())


def logits(size=16):
    return np.random.default_rng(3).normal(0, 2, size).astype(np.float32)


@functools.cache  # training Unigram numbers its pieces anew each time
def other_tokenizers():
    """Byte-level BPE as RoBERTa's and SmolLM2's, and SentencePiece-like ones as XLM-R's and T5's."""
    quiet, ends = {"show_progress": False}, [("<s>", 0), ("</s>", 1)]
    made, alphabet = [], pre_tokenizers.ByteLevel.alphabet()
    for digits in (None, pre_tokenizers.Digits(individual_digits=True)):
        backend = tokenizers.Tokenizer(models.BPE())
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, bytewise]) if digits else bytewise
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, **quiet)
        backend.train_from_iterator(TEXTS, trainer)
        backend.post_processor = processors.RobertaProcessing(*ends[::-1], trim_offsets=True, add_prefix_space=False)
        made.append(Tokenizer(backend.to_str()))
    for splits in (False, True):
        backend = tokenizers.Tokenizer(models.Unigram())
        steps = [pre_tokenizers.WhitespaceSplit()] if splits else []
        backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.Metaspace()])
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        special = {"special_tokens": [*SPECIAL, "<unk>"], "unk_token": "<unk>"}
        backend.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=120, **special, **quiet))
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
        )
        made.append(Tokenizer(backend.to_str()))
    return made


def windows_asked():
    """What each of these tokenizers is asked to read in windows."""
    return [
        (json.loads(one.tokenizer_json()), tokenizer_facts(one, "x"), QUESTIONS[0][0], context, 48)
        for one in other_tokenizers()
        for context in CONTEXTS
    ]


@pytest.fixture(scope="module")
def answers(files, tmp_path_factory):
    """{job: what the browser said}, all of one browser."""
    folder = tmp_path_factory.mktemp("pages")
    reports = {
        name: runtime.write_page(path, folder / name, Path(BROWSER, "node_modules")) for name, path in files.items()
    }
    for report in reports.values():
        assert report.checked_texts, report
        assert report.differing_texts == ()
    single = [(text,) for text in SAMPLES]
    seed = [(logits().tolist(), {**camel(options), "seed": 5}, DRAWS) for options in DRAWINGS]
    ruled = [(logits().tolist(), written, 2, 8, RULES) for written in WRITTEN]
    jobs = {
        "classify": {"page": "classify", "calls": calls("predict", [*single, *PAIRS])},
        "threads": {"page": "classify", "calls": calls("threads", [()]) + calls("predict", single), "isolated": True},
        "embed": {"page": "embed", "calls": calls("predict", single)},
        "tag": {"page": "tag", "calls": calls("predict", single) + calls("entities", single)},
        "answer": {"page": "answer", "calls": calls("answers", QUESTIONS)},
        "fill_mask": {"page": "fill_mask", "calls": calls("predict", single)},
        "write": {"page": "write", "calls": calls("generate", [(one, 20) for one in PROMPTS + MESSAGES])},
        "ids": {"page": "write", "calls": calls("ids", [(one, 20) for one in PROMPTS])},
        "rules": {"page": "write", "calls": calls("rules", ruled)},
        "windows": {"page": "answer", "calls": calls("windows", windows_asked())},
        "draws": {"page": "write", "calls": calls("draws", seed)},
        "translate": {"page": "translate", "calls": calls("generate", [(one, 20) for one in PROMPTS])},
        "classify form": {"page": "classify", "fields": {"text": SAMPLES[4], "second": ""}},
        "tag form": {"page": "tag", "fields": {"text": SAMPLES[2]}},
        "search form": {"page": "embed", "fields": {"texts": "\n".join(TEXTS), "query": TEXTS[2]}},
        "answer form": {"page": "answer", "fields": {"question": QUESTIONS[1][0], "context": QUESTIONS[1][1]}},
        "fill form": {"page": "fill_mask", "fields": {"text": SAMPLES[6]}},
        "write form": {"page": "write", "fields": {"prompt": "good é", "tokens": "12"}},
        "translate form": {"page": "translate", "fields": {"prompt": PROMPTS[0], "tokens": "12"}},
    }
    given = {
        "modules": str(Path(BROWSER, "node_modules").absolute()),
        "pages": str(folder),
        "jobs": list(jobs.values()),
    }
    environment = {**os.environ, "TMPDIR": str(folder)}  # where Chromium unpacks itself
    done = subprocess.run(
        ["node", SCRIPT], input=json.dumps(given), capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(zip(jobs, json.loads(done.stdout), strict=True))
    for name, answer in found.items():
        assert answer["errors"] == [], name
        assert answer["foreign"] == [], f"{name} asked elsewhere"
    return {name: answer["results"] for name, answer in found.items()}


def floats(rows):
    return [np.array(row, np.float64) for row in rows]


def units(text, place):
    """A place in characters as JavaScript counts them, in units of UTF-16."""
    return len(text[:place].encode("utf-16-le")) // 2


def test_classifier(files, answers):
    model, found = runtime.LiteRTModel(files["classify"]), floats(answers["classify"])
    wanted = np.concatenate([model.predict(SAMPLES), model.predict(PAIRS)])
    assert np.abs(np.stack(found) - wanted).max() <= 1e-3
    assert (np.stack(found).argmax(-1) == wanted.argmax(-1)).all()


def test_several_threads(files, answers):
    """Where the server's headers allow them, LiteRT.js takes its build with threads."""
    isolated, *found = answers["threads"]
    assert isolated is True
    assert np.abs(np.stack(floats(found)) - runtime.LiteRTModel(files["classify"]).predict(SAMPLES)).max() <= 1e-3


def test_embedder(files, answers):
    wanted = runtime.LiteRTModel(files["embed"]).predict(SAMPLES)
    assert np.abs(np.stack(floats(answers["embed"])) - wanted).max() <= 1e-3


def test_tagger(files, answers):
    model, count = runtime.LiteRTModel(files["tag"]), len(SAMPLES)
    assert answers["tag"][:count] == model.predict(SAMPLES)
    for text, found, wanted in zip(SAMPLES, answers["tag"][count:], model.entities(SAMPLES), strict=True):
        places = [(one.text, one.label, units(text, one.start), units(text, one.end)) for one in wanted]
        assert [(one["text"], one["label"], one["start"], one["end"]) for one in found] == places
        assert np.allclose([one["score"] for one in found], [one.score for one in wanted], atol=1e-3)


def test_answers(files, answers):
    model = runtime.LiteRTModel(files["answer"])
    for (question, context), found in zip(QUESTIONS, answers["answer"], strict=True):
        (wanted,) = model.predict([(question, context)], n_best=3)
        places = [(one.text, units(context, one.start), units(context, one.end)) for one in wanted]
        assert [(one["text"], one["start"], one["end"]) for one in found] == places
        assert np.allclose([one["probability"] for one in found], [one.probability for one in wanted], atol=1e-3)


def test_masked_words(files, answers):
    for found, wanted in zip(
        answers["fill_mask"], runtime.LiteRTModel(files["fill_mask"]).predict(SAMPLES), strict=True
    ):
        assert [[one["id"] for one in mask] for mask in found] == [[one[1] for one in mask] for mask in wanted]
        for mask, rows in zip(found, wanted, strict=True):
            assert [one["token"] for one in mask] == [row[0] for row in rows]
            assert np.allclose([one["probability"] for one in mask], [row[-1] for row in rows], atol=1e-3)


def test_language_model(files, answers):
    model = runtime.LiteRTGenerator(files["write"])
    assert answers["write"] == [
        model.generate(one, 20) if isinstance(one, str) else model.chat(one, 20) for one in PROMPTS + MESSAGES
    ]
    assert answers["ids"] == [model.generate_ids(model.tokenizer.ids([one])[0], 20) for one in PROMPTS]


def test_encoder_decoder(files, answers):
    model = runtime.LiteRTGenerator(files["translate"])
    assert answers["translate"] == [model.generate(one, 20) for one in PROMPTS]


def test_other_tokenizers(answers):
    cases = [(tokenizer, context) for tokenizer in other_tokenizers() for context in CONTEXTS]
    for (tokenizer, context), (rows, words) in zip(cases, answers["windows"], strict=True):
        wanted = encode_windows(tokenizer, [QUESTIONS[0][0]], [context], sequence_length=48)
        assert [ids for ids, _ in rows] == unpadded(wanted.batch, "token_ids"), context
        for (_, offsets), places, inside in zip(rows, wanted.offsets, wanted.in_context, strict=True):
            found = [place for place in offsets if place is not None]
            assert found == [[units(context, end) for end in place] for place in places[inside]], context
        wanted = encode_word_windows(tokenizer, [context.split(" ")], sequence_length=48)
        assert [ids for ids, _ in words] == unpadded(wanted.batch, "token_ids")
        mask = wanted.batch["padding_mask"]
        assert [of for _, of in words] == unpadded({"words": wanted.word_ids, "padding_mask": mask}, "words")


def unpadded(batch, name):
    return [row[mask > 0].tolist() for row, mask in zip(batch[name], batch["padding_mask"], strict=True)]


def test_rules_of_the_checkpoint(answers):
    rules = TokenRules(**RULES)
    for written, found in zip(WRITTEN, floats(answers["rules"]), strict=True):
        rows = Rows(np.array([written], np.int32), len(written), np.zeros(1, np.int32), 2, 8)
        assert np.allclose(found, rules.apply(logits()[None], rows)[0], atol=1e-5)


def test_draws(answers):
    for options, found in zip(DRAWINGS, floats(answers["draws"]), strict=True):
        scores = logits() / np.float32(options.get("temperature", 1))
        wanted = np.asarray(NUMPY.softmax(limited(scores[None], options, NUMPY)))[0]
        assert ((found > 0) <= (wanted > 0)).all()
        assert np.abs(found - wanted).max() < 5 * np.sqrt(0.25 / DRAWS)


def test_forms(files, answers):
    model = runtime.LiteRTModel(files["classify"])
    probabilities = dict(zip(model.labels, model.predict([SAMPLES[4]])[0], strict=True))
    shown = answers["classify form"]["rows"]
    assert [name for name, _ in shown] == sorted(probabilities, key=probabilities.get, reverse=True)
    assert all(abs(value - probabilities[name]) <= 1e-3 for name, value in shown)
    assert "ms" in answers["classify form"]["times"]

    (entities,) = runtime.LiteRTModel(files["tag"]).entities([SAMPLES[2]])
    assert answers["tag form"]["marks"] == [one.text for one in entities]

    vectors = runtime.LiteRTModel(files["embed"]).predict(TEXTS)
    nearest = sorted(range(len(TEXTS)), key=lambda index: -(vectors @ vectors[2])[index])
    assert [name for name, _ in answers["search form"]["rows"]] == [TEXTS[index] for index in nearest]
    assert abs(answers["search form"]["rows"][0][1] - 1) < 1e-3

    ((best,),) = runtime.LiteRTModel(files["answer"]).predict([QUESTIONS[1]])
    assert answers["answer form"]["marks"] == [best.text]

    ((mask,),) = runtime.LiteRTModel(files["fill_mask"]).predict([SAMPLES[6]])
    assert [name for name, _ in answers["fill form"]["rows"]] == [row[0] for row in mask]

    writer = runtime.LiteRTGenerator(files["write"])
    assert (
        answers["write form"]["text"].split("Model")[-1].strip()
        == writer.chat([{"role": "user", "content": "good é"}], 12).strip()
    )
    translator = runtime.LiteRTGenerator(files["translate"])
    assert answers["translate form"]["text"].strip() == translator.generate(PROMPTS[0], 12).strip()
