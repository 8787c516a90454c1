"""Reports, plots and latencies on made-up results."""

import json

import numpy as np
import pytest

from tfxformer.recipes import latency, plots, report

VARIANT = {
    "bytes": 91_000_000,
    "zipped_bytes": 66_000_000,
    "sparsity": 0.5,
    "scores": {"accuracy": 0.9372},
    "latency": {"median_ms": 2.04},
}
RESULTS = {
    "name": "topics",
    "task": "text-classification",
    "labels": ["a", "b"],
    "main_score": "accuracy",
    "date": "2026-11-22",
    "seconds": 61.4,
    "settings": {
        "sequence_length": 64,
        "learning_rate": 3e-4,
        "prune_learning_rate": 1e-4,
        "batch_size": 32,
        "prune_epochs": 1,
        "dtype": None,
        "seed": 0,
        "latency_rounds": 20,
    },
    "data": {"train_texts": 1640, "test_texts": 426},
    "machine": {"processor": "P", "cores": 2},
    "variants": {
        "keras": {**VARIANT, "file": None},
        "litert-dynamic_int8": {**VARIANT, "file": "topics-int8.tflite"},
    },
    "history": {"fine_tune": {"loss": [1.0, 0.5], "accuracy": [0.5, 0.9]}, "prune": {"loss": [0.4], "sparsity": [0.5]}},
}


def test_the_table_says_the_figures():
    assert report.markdown_table(RESULTS).splitlines()[-1] == "| LiteRT int8 | 0.937 | 91.0 | 66.0 | 50% | 2.0 |"
    assert "1,640 training and 426 test texts" in report.conditions(RESULTS)
    assert "2 epochs of fine-tuning" in report.conditions(RESULTS)


def test_only_what_stands_between_the_markers_is_renewed(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.update_section(path, report.section(RESULTS))
        text = path.read_text(encoding="utf-8")
        assert text == f"before\n{report.BEGIN}\n{report.section(RESULTS)}{report.END}\nafter\n"
    path.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for results"):
        report.update_section(path, report.section(RESULTS))


def test_the_card_has_front_matter_and_names_the_files():
    card = report.model_card(RESULTS, title="T", base_model="o/m", licence="mit", data="D.", limits="L.")
    _, front, body = card.split("---\n", 2)
    assert "base_model: o/m" in front
    assert "- `topics-int8.tflite`: LiteRT int8" in body
    assert 'LiteRTModel("topics-int8.tflite")' in body
    assert "None" not in body


def test_json_and_plots_are_written(tmp_path):
    report.write_json(tmp_path / "r.json", RESULTS)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == RESULTS
    plots.training_curve(RESULTS["history"], tmp_path / "a.png")
    plots.size_latency_score(RESULTS, tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n")


def test_calls_are_timed_in_turn():
    order = []
    found = latency.race({name: lambda name=name: order.append(name) for name in "ab"}, rounds=4, warmup=1)
    assert order == ["a", "b"] * 5
    assert found["a"]["rounds"] == 4
    assert 0 <= found["a"]["low_quartile_ms"] <= found["a"]["median_ms"] <= found["a"]["high_quartile_ms"]
    assert latency.processor_name()
    assert latency.cores() >= 1


def test_a_storys_results_are_kept_where_they_belong(tmp_path, capsys):
    folder, home = tmp_path / "run", tmp_path / "home"
    for path in (folder, home):
        path.mkdir()
    report.keep_results({"score": 1}, "| quick |", folder)
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == {"score": 1}
    assert "| quick |" in capsys.readouterr().out
    assert not list(home.iterdir())
    (home / "RESULTS.md").write_text(f"# Results\n{report.BEGIN}\n{report.END}\n", encoding="utf-8")
    report.keep_results({"score": 2}, "| whole |", folder, home)
    assert json.loads((home / "results.json").read_text(encoding="utf-8")) == {"score": 2}
    assert "| whole |" in (home / "RESULTS.md").read_text(encoding="utf-8")


def test_intervals_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).normal(1.0, 2.0, 300)
    wanted = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile").confidence_interval
    np.testing.assert_allclose(report.interval(values), wanted, atol=0.05)
    assert report.interval([0.5] * 9) == [0.5, 0.5]
