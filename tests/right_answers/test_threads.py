"""Threads and processes: one LiteRT file, many callers, each with its own answer."""

import contextlib
import gc
import os
import pickle
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import litert_files
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from export_cases import keras_probabilities
from language_cases import greedy_rows

from tfxformer import export
from tfxformer.runtime import interpreters, litert_model
from tfxformer.runtime.quiet import quiet

THREADS = 8
PROMPTS = ["good film", "what a bad film", "prices rose", "she asked where nobody answered", "the meeting", "a"]
TOKENS = 10


def in_threads(work, count=THREADS):
    """Runs `work(0)`, ..., each in a thread of its own, all at once; returns what they return."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


@pytest.fixture(scope="module")
def wanted_texts():
    """Keras' greedy continuations, without a cache, by prompt."""
    model = litert_files.language_model()
    texts, end = [], model.tokenizer.eos_id
    for found in greedy_rows(model, model.tokenizer.ids(PROMPTS), TOKENS):
        texts.append(model.tokenizer.decode([found[: found.index(end)] if end in found else found])[0])
    return texts


@pytest.fixture
def generator():
    return export.LiteRTGenerator(litert_files.decoder())


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("quantization", ["float32", "dynamic_int8"])
def test_one_model_many_threads(quantization, count):
    """8 threads x `count` texts; each answer to the bit what LiteRT's own interpreter, alone, says of that text."""
    path, texts = litert_files.classifier(quantization), litert_files.texts(count)
    runner = Interpreter(model_path=str(path), num_threads=1).get_signature_runner("classify")
    encoding = litert_files.task().tokenizer.encode(texts, sequence_length=litert_files.LENGTH)
    fields = ("token_ids", "padding_mask", "segment_ids")
    rows = zip(*(getattr(encoding, name)[:, None] for name in fields), strict=True)
    wanted = np.concatenate([runner(**dict(zip(fields, row, strict=True)))["probabilities"] for row in rows])
    if quantization == "float32":
        keras = keras_probabilities(litert_files.task(), texts[:50], litert_files.LENGTH)
        np.testing.assert_allclose(wanted[:50], keras, atol=1e-5)
    model = export.LiteRTModel(path)

    def work(thread):
        order = np.random.default_rng(thread).permutation(len(texts))
        return sum(not np.array_equal(model.predict([texts[i]])[0], wanted[i]) for i in order)

    assert in_threads(work) == [0] * THREADS


def test_many_texts_in_one_call_run_side_by_side(monkeypatch):
    """28 texts on a file of two lengths, in interpreters of one thread: to the bit what a call of each says."""
    monkeypatch.setattr(interpreters, "thread_count", lambda asked: asked or 3)
    path, texts = litert_files.exported("float32", 16, 48)[0], [*PROMPTS, " ".join(PROMPTS)] * 4
    alone = export.LiteRTModel(path, num_threads=1)
    wanted = np.concatenate([alone.predict([text]) for text in texts])
    main, run, places = threading.current_thread(), interpreters.Interpreters.run, []

    def seen(self, signature, inputs, alone=True):
        places.append((threading.current_thread() is main, alone))
        return run(self, signature, inputs, alone)

    monkeypatch.setattr(interpreters.Interpreters, "run", seen)
    np.testing.assert_array_equal(alone.predict(texts), wanted)  # who says num_threads gets no more
    np.testing.assert_array_equal(export.LiteRTModel(path).predict(texts), wanted)
    assert places == [(True, True)] * len(texts) + [(False, False)] * len(texts)


def test_an_error_among_many_calls_is_raised_and_the_model_goes_on(monkeypatch):
    monkeypatch.setattr(interpreters, "thread_count", lambda asked: asked or 2)
    model = export.LiteRTModel(litert_files.classifier("float32"))

    def broken():
        raise ValueError("the seventh")

    batch = dict.fromkeys(("token_ids", "padding_mask", "segment_ids"), np.ones((1, litert_files.LENGTH), np.int32))
    calls = [lambda: ("classify", batch)] * 20
    calls[6] = broken
    with pytest.raises(ValueError, match="the seventh"):
        list(model._interpreters.run_each(calls))
    assert len(list(model._interpreters.run_each(calls[7:]))) == 13


def test_one_generator_many_threads(generator, wanted_texts):
    def work(thread):
        order = np.random.default_rng(thread).permutation(len(PROMPTS) * 2) % len(PROMPTS)
        return [PROMPTS[i] for i in order if generator.generate(PROMPTS[i], TOKENS) != wanted_texts[i]]

    assert in_threads(work) == [[]] * THREADS


def test_streams_of_one_generator_take_turns(generator, wanted_texts):
    streams = [generator.stream(prompt, TOKENS) for prompt in PROMPTS]
    pieces = [[] for _ in streams]
    waiting = set(range(len(streams)))
    while waiting:
        for index in sorted(waiting):
            try:
                pieces[index].append(next(streams[index]))
            except StopIteration:
                waiting.discard(index)
    assert ["".join(text) for text in pieces] == wanted_texts
    assert generator.generate(PROMPTS[0], TOKENS) == wanted_texts[0]


def test_texts_that_are_over_lend_their_buffers(generator):
    for _ in range(3):
        next(generator.stream(PROMPTS[0], TOKENS))  # left in the middle
        generator.generate(PROMPTS[1], TOKENS)
    (runtime,) = generator._runtimes.values()
    assert len(runtime.free) == 1


def test_a_generator_that_goes_says_nothing(capfd):
    generator = export.LiteRTGenerator(litert_files.decoder())
    pieces = generator.stream(PROMPTS[0], 4)
    next(pieces)
    del generator
    assert list(pieces)
    del pieces
    gc.collect()
    assert capfd.readouterr().err == ""


def test_quiet_from_many_threads_leaves_descriptor_2_as_it_was():
    def state():
        descriptors = Path("/proc/self/fd")
        return os.fstat(2), list(warnings.filters), len(list(descriptors.iterdir())) if descriptors.exists() else 0

    def work(seed):
        chance = random.Random(seed)
        for _ in range(100):
            with contextlib.suppress(ZeroDivisionError), quiet():
                threading.Event().wait(chance.random() / 5000)
                if chance.random() < 0.2:
                    raise ZeroDivisionError

    before = state()
    in_threads(work)
    assert state() == before


def test_a_child_forked_inside_quiet_has_its_standard_error():
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    before = os.fstat(2)
    with quiet():
        assert os.fstat(2).st_ino != before.st_ino
        child = os.fork()
        if child == 0:
            os._exit(0 if os.fstat(2).st_ino == before.st_ino else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.fstat(2) == before


def test_running_touches_no_descriptor(monkeypatch):
    model = export.LiteRTModel(litert_files.classifier("float32"))

    def refuse(*arguments):
        raise AssertionError(f"a descriptor was touched: {arguments}")

    with monkeypatch.context() as patched:
        for name in ("dup", "dup2", "open", "close"):
            patched.setattr(os, name, refuse)
        assert len(in_threads(lambda _: model.predict(PROMPTS))) == THREADS  # the first calls too


def test_answers_are_copies():
    model = export.LiteRTModel(litert_files.classifier("float32"))
    first = model.predict(PROMPTS[:1])
    kept = first.copy()
    batch = {tensor.name: np.ones(tensor.shape, tensor.dtype) for tensor in model.signatures["classify"].inputs}
    outputs = model.run("classify", batch)
    kept_outputs = {name: value.copy() for name, value in outputs.items()}
    model.predict(PROMPTS)
    np.testing.assert_array_equal(first, kept)
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, kept_outputs[name])


def test_interpreters_are_made_for_calls_at_the_same_time_only(monkeypatch):
    opened = []
    pool_open = interpreters._Pool._open
    monkeypatch.setattr(interpreters._Pool, "_open", lambda pool, n: opened.append(n) or pool_open(pool, n))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    model = export.LiteRTModel(litert_files.classifier("float32"))
    for _ in range(5):
        model.predict(PROMPTS)
    assert opened == [3]
    in_threads(lambda _: [model.predict(PROMPTS) for _ in range(20)])
    assert 1 < len(opened) <= 4  # those that run together have a thread each, and are no more than cores
    assert opened[1:] == [1] * (len(opened) - 1)
    opened.clear()
    model = export.LiteRTModel(litert_files.classifier("float32"), num_threads=2)
    in_threads(lambda _: [model.predict(PROMPTS) for _ in range(20)])
    assert opened == [2]  # a second one would want more cores than there are


def test_forked_children_answer():
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    model = export.LiteRTModel(litert_files.classifier("float32"))
    generator = export.LiteRTGenerator(litert_files.decoder())
    wanted, text = model.predict(PROMPTS), generator.generate(PROMPTS[0], TOKENS)
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            model.predict(PROMPTS)
            generator.generate(PROMPTS[1], TOKENS)

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        for _ in range(5):  # in the middle of the other thread's calls
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: what is tested here
                child = os.fork()
            if child == 0:
                right = (
                    np.array_equal(model.predict(PROMPTS), wanted) and generator.generate(PROMPTS[0], TOKENS) == text
                )
                os._exit(0 if right else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        other.join()


def test_pickled_models_are_their_paths(wanted_texts):
    model = export.LiteRTModel(litert_files.classifier("float32"), num_threads=1)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(PROMPTS), model.predict(PROMPTS))
    generator = pickle.loads(pickle.dumps(export.LiteRTGenerator(litert_files.decoder())))
    assert generator.generate(PROMPTS[0], TOKENS) == wanted_texts[0]


def test_a_file_that_is_replaced_or_overwritten(tmp_path, monkeypatch):
    path, other = tmp_path / "model.tflite", tmp_path / "other.tflite"
    path.write_bytes(litert_files.classifier("float32").read_bytes())
    other.write_bytes(litert_files.classifier("dynamic_int8").read_bytes())
    model = export.LiteRTModel(path)
    wanted = model.predict(PROMPTS)
    other.replace(path)  # a new file of this name: the old one is still mapped
    for found in in_threads(lambda _: model.predict(PROMPTS)):
        np.testing.assert_array_equal(found, wanted)
    model = export.LiteRTModel(path)
    path.write_bytes(b"")  # mapped pages that are gone would end the process
    with pytest.raises(ValueError, match="overwritten after it was opened"):
        model.predict(PROMPTS)


def test_no_thread_takes_the_warning_of_long_texts_away():
    model = litert_model.LiteRTModel(litert_files.classifier("float32"))
    with pytest.warns(UserWarning, match="1 of 1 texts were longer"):
        in_threads(lambda _: model.predict(["good film " * 40]))
