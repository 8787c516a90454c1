"""history.json and its curves: after every epoch, resumed, and whole whatever happens."""

import json

import keras
import numpy as np
import pytest

from tfxformer import files
from tfxformer.training import HistoryFiles, Throughput, WarmupLinear
from tfxformer.training.callbacks import history

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 3)).astype("float32")
Y = X.sum(-1, keepdims=True)


def make(rate=0.05):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    return model


def fit(model, *callbacks, **arguments):
    arguments = {"batch_size": 8, "epochs": 3, "verbose": 0, "shuffle": False, **arguments}
    return model.fit(X, Y, callbacks=list(callbacks), **arguments).history


def read(folder):
    return json.loads((folder / "history.json").read_text(encoding="utf-8"))


def test_every_number_of_every_epoch_is_written_as_it_ends(tmp_path):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(len(read(tmp_path / "new" / "folder")["epoch"]))
            assert (tmp_path / "new" / "folder" / "training-curve.png").read_bytes().startswith(b"\x89PNG")

    schedule = WarmupLinear(0.05, 9, 0.3)
    files_of = HistoryFiles(tmp_path / "new" / "folder")
    found = fit(make(schedule), Throughput(1e12), files_of, Look(), validation_data=(X, Y))
    written = read(tmp_path / "new" / "folder")
    assert seen == [1, 2, 3] and written.pop("epoch") == [1, 2, 3] and written.pop("updates") == [3, 6, 9]
    np.testing.assert_allclose(written.pop("learning_rate"), [float(schedule(step)) for step in (3, 6, 9)], rtol=1e-6)
    assert written == history.numbers(keras.callbacks.History()) | found
    assert {"loss", "mae", "val_loss", "val_mae", "samples_per_second", "mfu"} == set(written)
    assert sorted(path.name for path in files_of.folder.iterdir()) == ["history.json", "training-curve.png"]


def test_a_training_that_goes_on_goes_on_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "training_curve", lambda *_: None)  # a third of a second each
    whole = tmp_path / "whole"
    fit(make(), HistoryFiles(whole))
    model = make()
    fit(model, HistoryFiles(tmp_path), epochs=2)
    fit(model, HistoryFiles(tmp_path), epochs=3, initial_epoch=2)
    assert read(tmp_path) == read(whole)
    before = read(tmp_path)
    model = make()
    fit(model, epochs=1)
    fit(model, Throughput(), HistoryFiles(tmp_path), epochs=3, initial_epoch=1)  # the second epoch again
    after = read(tmp_path)
    assert after.pop("samples_per_second")[0] is None
    assert after == before
    fit(make(), HistoryFiles(tmp_path), epochs=1)  # from the beginning
    assert read(tmp_path)["epoch"] == [1]


def test_what_is_not_finite_is_null(tmp_path):
    model = make(1e20)
    fit(model, HistoryFiles(tmp_path))
    assert read(tmp_path)["loss"][-1] is None and (tmp_path / "training-curve.png").exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"loss": [1.0]}', '{"epoch": [1], "loss": [1, 2]}', '{"epoch": "abc"}']
)
def test_a_file_that_is_no_history_is_not_overwritten(content, tmp_path):
    (tmp_path / "history.json").write_text(content)
    with pytest.raises(ValueError, match=r"history\.json is no history that training could go on with"):
        fit(make(), HistoryFiles(tmp_path), initial_epoch=1)
    assert (tmp_path / "history.json").read_text() == content


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def full(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match=r"a\.json could not be written: No space left"):
        patched.setattr("pathlib.Path.replace", full)
        files.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1} and list(tmp_path.iterdir()) == [path]
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder could not be written"):
        files.write_text(tmp_path / "folder", "text")
    with pytest.raises(OSError, match=r"b could not be written"):
        files.write_text(path / "b", "text")


def test_curves_are_drawn_in_panels_of_their_kind(tmp_path):
    drawn, colours = {}, {}
    values = {
        "epoch": [1, 2],
        "updates": [5, 10],
        "loss": [2.0, 1.0],
        "val_loss": [None, 1.5],
        "accuracy": [0.5, 0.75],
        "learning_rate": [1e-3, 1e-4],
        "tokens_per_second": [100.0, 200.0],
    }

    def look(figure, path):
        for axis in figure.axes:
            drawn[axis.get_ylabel()] = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
            colours.update({line.get_label(): line.get_color() for line in axis.lines})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(history, "save_figure", look)
        history.training_curve({"fit": values, "prune": {"loss": [0.5], "sparsity": [0.25]}}, tmp_path / "a.png")
    assert set(drawn) == {"loss", "score", "learning rate", "a second", "share of zeros"}
    assert drawn["loss"]["fit: loss"] == [[1, 2.0], [2, 1.0]] and drawn["loss"]["prune: loss"] == [[3, 0.5]]
    assert set(drawn["loss"]) == {"fit: loss", "fit: loss, held out", "prune: loss"}
    assert list(drawn["score"]) == ["fit: accuracy"] and list(drawn["a second"]) == ["fit: tokens per second"]
    assert colours["fit: loss"] == colours["fit: loss, held out"] != colours["prune: loss"]
