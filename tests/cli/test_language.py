"""train-lm, generate and chat, on a few lines of text."""

import json

import pytest
from typer.testing import CliRunner

from tfxformer.cli.main import app
from tfxformer.tasks import CausalLM
from tfxformer.text import Tokenizer

LINES = ["the film was good", "the plot was dull", "we saw a fine film"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def run(*arguments, input=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)


def run_json(*arguments, input=None):
    result = run(*arguments, "--json", input=input)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def failure(*arguments, code=1):
    """What is said; code 2 for values that no file has to be opened for to see that they are wrong."""
    result = run(*arguments)
    assert result.exit_code == code and result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "lines.txt").write_text("\n".join(LINES * 8), encoding="utf-8")
    options = ["--tokenizer", "bpe", "--vocabulary-size", 280, "--sequence-length", 32, "--epochs", 2]
    with pytest.MonkeyPatch.context() as patch:
        from tfxformer.layers.kernels import clusters
        from tfxformer.models import presets

        patch.setattr(clusters, "use_clusters", lambda: False)
        small = {"decoder__num_layers": 1, "decoder__hidden_size": 32, "decoder__feed_forward__size": 64}
        patch.setitem(presets.PRESETS, "gpt-nano", presets.preset("gpt-nano").replace(**small))
        result = run_json(
            "train-lm", folder / "lines.txt", "-o", folder / "model", "--validation", "0.2", "--batch-size", 4, *options
        )
    return folder / "model", result


def test_a_model_from_scratch_learns_and_is_written(trained):
    folder, result = trained
    history = json.loads((folder / "results.json").read_text())["history"]
    assert history["perplexity"][1] < history["perplexity"][0]
    assert result["last_epoch"]["val_perplexity"] == history["val_perplexity"][-1]
    assert (result["sequence_length"], result["task"]) == (32, "causal-lm")
    opened = CausalLM.from_pretrained(folder)
    text = "\n".join(LINES * 8)
    learned = Tokenizer.train_byte_level_bpe([text[: round(0.8 * len(text))]], 280)
    assert opened.tokenizer.vocabulary() == learned.vocabulary()
    assert {"model.keras", "model.safetensors", "training-curve.png"} <= {path.name for path in folder.iterdir()}


def test_generation_streams_what_it_returns(trained):
    folder, _ = trained
    for seed in range(3, 30):  # a draw may be the end at once
        options = ["--max-new-tokens", 6, "--top-p", 0.9, "--temperature", 1.2, "--seed", seed]
        text = run_json("generate", folder, "the film", *options)["continuation"]
        if len(text) > 3:
            break
    assert run_json("generate", folder / "model.keras", "the film", *options)["continuation"] == text
    assert run("generate", folder, "the film", *options).stdout == text + "\n"
    assert (
        run_json("generate", folder, "the film", *options, "--stop", text[3])["continuation"]
        == text[: text.find(text[3])]
    )
    greedy = CausalLM.from_pretrained(folder).generate(["the film"], 6)[0]
    assert run_json("generate", folder, "the film", "--max-new-tokens", 6)["continuation"] == greedy


@pytest.mark.road
def test_an_exported_file_continues_alike(trained, tmp_path):
    folder, _ = trained
    file = tmp_path / "model.tflite"
    options = ["--quantization", "float32", "--cache-length", 48, "--prefill-lengths", 8]
    assert run_json("export", folder, file, *options)["signatures"] == ["prefill_8", "decode"]
    options = ["the film", "--max-new-tokens", 6]
    (said, again) = (run_json("generate", model, *options)["continuation"] for model in (folder, file))
    assert said == again
    drawn = [run_json("generate", file, *options, "--top-k", 5, "--seed", 1)["continuation"] for _ in range(2)]
    assert drawn[0] == drawn[1]


@pytest.mark.extra
def test_a_bundle_is_opened_as_the_file_in_it(trained):
    pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    import litert_files

    file, bundle = litert_files.decoder(), litert_files.bundle()
    assert run_json("inspect", bundle)["signatures"] == run_json("inspect", file)["signatures"]
    said = [run_json("generate", path, "good film", "--max-new-tokens", 6)["continuation"] for path in (file, bundle)]
    assert said[0] == said[1]
    options = ["--max-new-tokens", 6]
    said = [run_json("chat", path, *options, input="good film\n")["messages"] for path in (file, bundle)]
    assert said[0] == said[1] and len(said[0]) == 2
    assert "LiteRTGenerator" in failure("predict", bundle, "good film")
    assert "cannot be" not in failure("prune", bundle, trained[0] / "results.json", "-o", trained[0] / "never")


@pytest.mark.road
def test_answers_are_learned_and_chatted_with(trained, tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [{"prompt": f"{line}:", "answer": " yes"} for line in LINES]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = run_json("train-lm", path, "-o", tmp_path / "tuned", "--model", trained[0], "--epochs", 1)
    assert result["training_texts"] == 3 and result["sequence_length"] == 32
    (tmp_path / "tuned" / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    model = CausalLM.from_pretrained(tmp_path / "tuned")
    options = ["--max-new-tokens", 6, "--system", "say"]
    spoken = run_json("chat", tmp_path / "tuned", *options, input="good film\n\ndull plot\n")["messages"]
    assert [message["role"] for message in spoken] == ["system", "user", "assistant", "user", "assistant"]
    assert [spoken[0]["content"], spoken[1]["content"], spoken[3]["content"]] == ["say", "good film", "dull plot"]
    assert spoken[2]["content"] == model.chat(spoken[:2], 6).strip()
    assert spoken[4]["content"] == model.chat(spoken[:4], 6).strip()
    shown = run("chat", tmp_path / "tuned", *options, input="good film\n").stdout
    assert shown.strip() == spoken[2]["content"]
    # A template that opens the reasoning: what is not closed is no answer.
    opening = TEMPLATE + "{% if enable_thinking %}<think>{% endif %}"
    (tmp_path / "tuned" / "chat_template.jinja").write_text(opening, encoding="utf-8")
    hidden = ["--thinking", "--hide-reasoning", *options]
    assert run("chat", tmp_path / "tuned", *hidden, input="good film\n").stdout.strip() == ""
    assert run("chat", tmp_path / "tuned", "--hide-reasoning", *options, input="good film\n").stdout == shown


def test_errors_are_one_line_and_leave_nothing(trained, tiny, tmp_path):
    folder, _ = trained
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n', encoding="utf-8")
    output = tmp_path / "never"
    assert f"{bad}, line 2, column 'answer': wanted a text, got nothing" in failure("train-lm", bad, "-o", output)
    bad.write_text('{"question": "a"}\n', encoding="utf-8")
    assert "bad.jsonl: wanted the key 'text'" in failure("train-lm", bad, "-o", output)
    assert "a data file ends in .csv" in failure("train-lm", tmp_path / "a.docx", "-o", output)
    text = tmp_path / "text.txt"
    text.write_text("a text", encoding="utf-8")
    assert "Unknown tokenizer 'words'" in failure("train-lm", text, "-o", output, "--tokenizer", "words")
    assert "is an encoder" in failure("train-lm", text, "-o", output, "--preset", "bert-tiny")
    assert "share between 0 and 1" in failure("train-lm", text, "-o", output, "--validation", "2", code=2)
    assert "1.5 must be above 0 and at most 1" in failure("generate", folder, "a", "--top-p", 1.5, code=2)
    assert "the model's context is 64" in failure("generate", folder, "a " * 90)
    assert "continues no text" in failure("generate", tiny, "good")
    assert "no chat template" in run("chat", folder, input="hello\n").stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "text.txt"]
