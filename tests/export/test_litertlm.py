"""bundle_litertlm: what is inside, and what is refused; tests/clients/test_litertlm.py runs the bundles."""

import sys

import jinja2
import litert_files
import pytest
from export_cases import TEXTS, WORDS
from language_cases import causal_lm, chat_tokenizer

from tfxformer import export
from tfxformer.export import litertlm
from tfxformer.text import Tokenizer


@pytest.fixture(scope="module")
def builder():
    return pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")


@pytest.fixture(scope="module")
def model():
    return litert_files.language_model()


@pytest.fixture(scope="module")
def tflite():
    return litert_files.decoder()


@pytest.mark.extra
def test_the_bundle_says_what_the_runtime_needs(builder, model, tflite, tmp_path):
    export.bundle_litertlm(tflite, model.tokenizer, tmp_path / "folder" / "m.litertlm")
    content = (tmp_path / "folder" / "m.litertlm").read_bytes()
    assert content[:8] == b"LITERTLM"
    assert tflite.read_bytes() in content
    metadata = litertlm._metadata(tflite, model.tokenizer, model.tokenizer.chat_template)
    assert metadata.SerializeToString() in content
    assert metadata.max_num_tokens == litert_files.CACHE
    assert [list(token.token_ids.ids) for token in metadata.stop_tokens] == [[model.tokenizer.eos_id]]
    assert not metadata.HasField("start_token"), "this tokenizer puts no begin token in front"
    assert metadata.sampler_params.k == 1, "greedy"


def test_parts_of_a_message_become_text():
    """LiteRT-LM gives contents as lists of parts; a template that expects text reads them, and text too."""
    template = jinja2.Template(litertlm.JOIN_PARTS + chat_tokenizer().chat_template)
    parts = [{"type": "text", "text": "good "}, {"type": "text", "text": "film"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "bad"}]
    wanted = "<|user|>good film<|assistant|>bad<|assistant|>"
    assert template.render(messages=messages, add_generation_prompt=True) == wanted


@pytest.mark.extra
def test_a_tokenizer_of_another_model_is_refused(builder, tflite, tmp_path):
    words = [f"{word}{index}" for index in range(40) for word in WORDS]
    other = Tokenizer.train_byte_level_bpe([*TEXTS, " ".join(words)], 600)
    assert other.vocabulary_size > 400
    with pytest.raises(ValueError, match="do not belong together"):
        export.bundle_litertlm(tflite, other, tmp_path / "m.litertlm")
    assert not list(tmp_path.iterdir())


@pytest.mark.extra
def test_a_tokenizer_without_an_end_token_is_refused(builder, tflite, tmp_path):
    with pytest.raises(ValueError, match="no end token"):
        export.bundle_litertlm(tflite, Tokenizer.characters("good film"), tmp_path / "m.litertlm")


@pytest.mark.extra
def test_a_file_that_keeps_windows_only_is_refused(builder, tokenizer, tmp_path):
    path = tmp_path / "windows.tflite"
    model = causal_lm("partial, parallel and windows")
    export.export_litert(model, path, "float32", cache_length=48, prefill_lengths=(4,))
    with pytest.raises(ValueError, match=r"keep 12 slots of the cache's 48.*full_cache=True"):
        export.bundle_litertlm(path, tokenizer, tmp_path / "m.litertlm")


@pytest.mark.extra
def test_other_files_are_refused(builder, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no signature decode"):
        export.bundle_litertlm(litert_files.classifier("float32"), tokenizer, tmp_path / "m.litertlm")
    with pytest.raises(FileNotFoundError):
        export.bundle_litertlm(tmp_path / "nothing.tflite", tokenizer, tmp_path / "m.litertlm")


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tflite, model, tmp_path):
    monkeypatch.setitem(sys.modules, "litert_lm_builder", None)
    with pytest.raises(ImportError, match=r"tfxformer\[litertlm\]"):
        export.bundle_litertlm(tflite, model.tokenizer, tmp_path / "m.litertlm")
