"""Resume: trainings that were interrupted anywhere end bit for bit as those that were not."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
import replicas
import resume_cases
import strategy_processes
import tensorflow as tf
from resume_cases import case

from tfxformer import training
from tfxformer.training.resume import checkpoint_files, checkpoint_state, data_positions

SCRIPT = Path(resume_cases.__file__)
pytestmark = pytest.mark.usefixtures("eager")


class Interruption(BaseException):
    """What no fit catches, as a process that ends without a word."""


class Interrupt(keras.callbacks.Callback):
    """Ends fit after so many executions (or epochs)."""

    def __init__(self, batches=None, epochs=None):
        super().__init__()
        self.batches, self.epochs = batches, epochs

    def on_train_batch_end(self, batch, logs=None):
        if self.batches is not None:
            self.batches -= 1
            if self.batches == 0:
                raise Interruption

    def on_epoch_end(self, epoch, logs=None):
        if self.epochs is not None and epoch + 1 == self.epochs:
            raise Interruption


def fit(options, folder, *callbacks):
    return resume_cases.fit(options, folder, False, nullcontext, callbacks)


def interrupted(options, folder, *callbacks):
    with pytest.raises(Interruption):
        fit(options, folder, *callbacks)


def assert_equal(one, other):
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


# ---- interrupted anywhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "batches", "graph"),
    [
        (case(accumulation=4, ema=True, epochs=2), (3, 6), True),
        (case(accumulation=2, dtype="mixed_float16", data="python", epochs=2), (2, 7), False),
        (case(data="shuffled", steps_per_execution=2, save_freq=2, epochs=2), (1, 4), True),
        (case(data="repeated", epochs=2), (3, 2), False),
        (case(data="epochs", dtype="mixed_bfloat16", save_freq=4, epochs=2), (5, 4), False),
    ],
    ids=lambda value: value["data"] if isinstance(value, dict) else "",
)
def test_a_training_interrupted_twice_ends_as_one_that_was_not(tmp_path, options, batches, graph):
    tf.config.run_functions_eagerly(not graph)
    whole = fit(options, tmp_path / "whole")
    for count in batches:
        interrupted(options, tmp_path / "run", Interrupt(count))
    assert_equal(whole, fit(options, tmp_path / "run"))
    assert_equal(whole, fit(options, tmp_path / "run"))  # and again, where nothing is left to train


@pytest.mark.parametrize("data", ["dataset", "python"])
def test_without_interruption_it_is_the_fit_of_keras(tmp_path, data):
    tf.config.run_functions_eagerly(data == "python")
    options = case(data=data, epochs=2)
    plain = resume_cases.model(options)
    ids, labels = resume_cases.arrays(16)
    history = plain.fit(
        **resume_cases.data(options), epochs=2, shuffle=False, validation_data=(ids, labels), validation_batch_size=8
    ).history
    if data == "python":  # there the order of batches is Resume's
        model = resume_cases.model(options)
        history = model.fit(
            **resume_cases.data(options),
            epochs=2,
            shuffle=False,
            validation_data=(ids, labels),
            validation_batch_size=8,
            callbacks=[training.Resume(tmp_path / "ordered")],
        ).history
        for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        return
    ours = fit(options, tmp_path / "run")
    for index, variable in enumerate(plain.variables):
        np.testing.assert_array_equal(ours[f"variable_{index:03d}"], variable.numpy())
    for name, values in history.items():
        np.testing.assert_array_equal(ours[f"history_{name}"], values)


def test_arrays_are_shuffled_anew_in_every_epoch_and_batches_keep_their_numbers(tmp_path):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(("begin", batch))

        def on_train_batch_end(self, batch, logs=None):
            seen.append(("end", batch))

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(("epoch", epoch))

    options = case(epochs=2, rows=24, steps_per_execution=2)  # three batches
    interrupted(options, tmp_path, Interrupt(4))  # in the second epoch's second execution, after its first was saved
    fit(options, tmp_path, Watch())
    assert seen == [("epoch", 1), ("begin", 2), ("end", 3)]
    source = data_positions.positioned(np.arange(50), batch_size=50, seed=3)
    orders = [next(iter(source.next_epoch(epoch)))[0].numpy() for epoch in (0, 1, 0)]
    assert (orders[0] != orders[1]).any() and (orders[0] == orders[2]).all()
    assert sorted(orders[1]) == list(range(50))


def run(folder, cases, output=None, configs=(None,)):
    """The processes of the cases, started at once."""
    todo = Path(folder) / "cases.json"
    todo.write_text(json.dumps(cases), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(folder), str(todo), *([str(output)] if output else [])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen(command, env=strategy_processes.environment(config), **pipes) for config in configs]


def ended(processes, timeout=300):
    """(exit codes, outputs)."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def killed(folder, options, configs=(None,)):
    codes, outputs = ended(run(folder, [options], configs=configs))
    assert codes[options["worker"]] == -options["signal"], outputs
    return codes, outputs


def assert_equal_runs(output, names):
    with np.load(output) as stored:
        found = dict(stored)
    for name in names:
        one, other = (
            {key.split("/")[2]: value for key, value in found.items() if key.startswith(f"{name}/{kind}/")}
            for kind in ("resumed", "whole")
        )
        assert one
        assert_equal(other, one)


@pytest.mark.slow
def test_a_process_killed_while_saving(tmp_path, traced):
    """It goes on here, in another process, from the file before."""
    options = case(accumulation=2, epochs=2)
    killed(tmp_path, {**options, "kill": ["save", 5]})  # two syncs for each file
    unfinished = [path for path in (tmp_path / "case").iterdir() if path.name.startswith(".")]
    assert unfinished
    assert_equal(fit(options, tmp_path / "whole"), fit(options, tmp_path / "case"))
    assert not any(path.exists() for path in unfinished)


@pytest.mark.slow
def test_processes_killed_in_an_epoch_at_its_end_and_while_saving(tmp_path):
    first = case(name="first", accumulation=2)
    killed(tmp_path, {**first, "kill": ["batch", 4]})
    killed(tmp_path, {**first, "kill": ["save", 5]})  # two syncs for each file
    unfinished = [path for path in (tmp_path / "first").iterdir() if path.name.startswith(".")]
    assert unfinished
    second = case(name="second", jit=True, steps_per_execution=2, save_freq=2, data="python")
    killed(tmp_path, {**second, "kill": ["epoch", 1]})
    codes, outputs = ended(run(tmp_path, [first, second], tmp_path / "out.npz"))
    assert codes == [0], outputs
    assert_equal_runs(tmp_path / "out.npz", ["first", "second"])
    assert not any(path.exists() for path in unfinished)


@pytest.mark.road
def test_two_replicas_go_on_within_an_accumulation(tmp_path):
    assert replicas.run(resume_cases.differences_of_two_replicas, str(tmp_path)) == []


@pytest.mark.slow
def test_two_replicas_killed_within_an_accumulation(tmp_path):
    options = case(strategy="mirrored", accumulation=4, data="shuffled")
    killed(tmp_path, {**options, "kill": ["batch", 9]})
    codes, outputs = ended(run(tmp_path, [options], tmp_path / "out.npz"))
    assert codes == [0], outputs
    assert_equal_runs(tmp_path / "out.npz", ["case"])


@pytest.mark.slow
def test_two_workers_one_of_them_killed(tmp_path):
    options = case(strategy="multiworker", accumulation=4, differ=True)
    codes, outputs = killed(
        tmp_path, {**options, "kill": ["batch", 6], "worker": 1}, configs=strategy_processes.cluster()
    )
    assert codes[0] == 1
    assert "LostWorkerError: Another of the 2 workers has ended" in outputs[0], outputs[0][-3000:]
    for output in outputs:  # before that, the second one came with another row
        assert "The workers would not train the same: data" in output and "epochs is 3 on worker 0" in output
    codes, outputs = ended(
        run(tmp_path, [{**options, "differ": False}], tmp_path / "out.npz", strategy_processes.cluster())
    )
    assert codes == [0, 0], outputs
    assert_equal_runs(tmp_path / "out.npz", ["case"])


# ---- SIGTERM --------------------------------------------------------------------------------------------------


class Terminate(keras.callbacks.Callback):
    """Sends SIGTERM to this process in a batch of an epoch, of training or of validation."""

    def __init__(self, epoch, testing=False):
        super().__init__()
        self.wanted, self.testing, self.batches = epoch, testing, []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _send(self, batch):
        if self.epoch == self.wanted and batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_begin(self, batch, logs=None):
        self.batches.append(batch)
        if not self.testing:
            self._send(batch)

    def on_test_batch_begin(self, batch, logs=None):
        if self.testing:
            self._send(batch)


@pytest.mark.parametrize("testing", [False, True], ids=["training", "validation"])
def test_sigterm_saves_at_the_end_of_the_step_and_ends_the_process(tmp_path, testing, capsys):
    options = case(save_freq="epoch", epochs=2, rows=24)
    whole = fit(options, tmp_path / "whole")
    heard, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ending:
            fit(options, tmp_path / "run", Terminate(1, testing))
        assert ending.value.code == 143 and heard == [True]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "on SIGTERM" in capsys.readouterr().out
    names = [path.name for path in checkpoint_files.list_checkpoints(tmp_path / "run")]
    assert names[-1] == checkpoint_files.checkpoint_name(1, 3 if testing else 2)
    watch = Terminate(-1)
    assert_equal(whole, fit(options, tmp_path / "run", watch))
    assert watch.batches == ([] if testing else [2])
    assert signal.getsignal(signal.SIGTERM) is before


# ---- checkpoints that are not as they should be ---------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(options, folder of a training stopped in its second epoch, results of the whole one)."""
    options, folder = case(epochs=2, rows=24), tmp_path_factory.mktemp("stopped")
    tf.config.run_functions_eagerly(True)  # as those that go on
    try:
        interrupted(options, folder / "run", Interrupt(5))
        return options, folder / "run", fit(options, folder / "whole")
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def copied(stopped, tmp_path):
    options, folder, whole = stopped
    shutil.copytree(folder, tmp_path / "run")
    return options, tmp_path / "run", whole


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "header"])
def test_a_damaged_newest_checkpoint_is_passed_over(copied, damage):
    options, folder, whole = copied
    before, newest = checkpoint_files.list_checkpoints(folder)
    content = bytearray(newest.read_bytes())
    if damage == "changed":
        content[-7] ^= 1
    if damage == "header":
        content[content.index(b"epoch")] ^= 1
    newest.write_bytes({"cut": content[:-9], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged.*Going back to {before.name}"):
        assert_equal(whole, fit(options, folder))


def test_where_all_are_damaged_nothing_is_begun_anew(copied):
    options, folder, _ = copied
    for path in checkpoint_files.list_checkpoints(folder):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(training.ResumeError, match=r"No checkpoint in .* is whole"):
        fit(options, folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rows": 32}, "rows 24 in the checkpoint, 32 here"),
        ({"data": "dataset"}, "kind arrays in the checkpoint, tf.data.Dataset here"),
        ({"accumulation": 3}, "accumulation 1 in the checkpoint, 3 here"),
        ({"ema": True}, "optimizer use_ema False in the checkpoint, True here"),
        ({"dtype": "mixed_float16"}, "optimizer class AdamW in the checkpoint, LossScaleOptimizer here"),
    ],
)
def test_other_data_or_another_optimizer_is_refused(copied, change, message):
    options, folder, _ = copied
    with pytest.raises(training.ResumeError) as error:
        fit({**options, **change}, folder)
    assert message in str(error.value) and "another folder" in str(error.value)


def test_another_model_is_refused(copied):
    options, folder, _ = copied
    other = resume_cases.model(options)
    inputs = keras.Input((resume_cases.LENGTH,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(resume_cases.VOCABULARY, 8)(inputs))
    wide = training.DistributedModel(inputs, keras.layers.Dense(5)(keras.layers.Dense(17, name="middle")(x)))
    wide.compile(other.optimizer, other.loss, weighted_metrics=["accuracy"])
    with pytest.raises(training.ResumeError, match=r"middle.kernel \(48, 17\) float32 here"):
        wide.fit(**resume_cases.data(options), epochs=2, callbacks=[training.Resume(folder)])
    with pytest.raises(training.ResumeError, match="another model"):
        checkpoint_state.restore_weights("x", {}, wide)


def test_other_batches_or_another_seed_are_refused(copied):
    options, folder, _ = copied
    made = resume_cases.model(options)
    given = {**resume_cases.data(options), "batch_size": 6}
    with pytest.raises(training.ResumeError, match="batch size 8 in the checkpoint, 6 here"):
        made.fit(**given, epochs=2, callbacks=[training.Resume(folder)])
    with pytest.raises(training.ResumeError, match="seed 0 in the checkpoint, 1 here"):
        made.fit(**resume_cases.data(options), epochs=2, callbacks=[training.Resume(folder, seed=1)])


def test_a_dataset_in_another_order_is_refused(tmp_path):
    options = case(data="shuffled", epochs=1)
    fit(options, tmp_path)
    made, given = resume_cases.model(options), resume_cases.data(case(data="dataset"))["x"]
    with pytest.raises(training.ResumeError, match="first batch"):
        made.fit(given.unbatch().shuffle(40, seed=9).batch(8), callbacks=[training.Resume(tmp_path)])


def test_a_full_disk_leaves_the_checkpoint_before_whole(copied):
    options, folder, whole = copied
    size = min(path.stat().st_size for path in checkpoint_files.list_checkpoints(folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(OSError, match=r"could not be written .*; checkpoint-000001-000000001.* is whole"):
            fit(options, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert_equal(whole, fit(options, folder))


# ---- which are kept -------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path):
    class Pretend(keras.callbacks.Callback):
        """Logs a value of one's own."""

        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = [0.1, 0.7, 0.7, 0.3][epoch]
            weights.append(self.model.get_weights())

    weights, options = [], case(epochs=4, rows=16)
    model = resume_cases.model(options)
    resume = training.Resume(tmp_path, keep=1, monitor="score", mode="max")
    model.fit(**resume_cases.data(options), epochs=4, verbose=0, callbacks=[resume, Pretend()])
    names = [path.name for path in checkpoint_files.list_checkpoints(tmp_path)]
    assert names == [checkpoint_files.checkpoint_name(epoch, 0) for epoch in (2, 4)]
    fresh = resume_cases.model(options)
    assert training.Resume(tmp_path).restore_best(fresh) == 0.7
    for one, other in zip(fresh.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_monitor_that_is_not_logged_is_said(tmp_path):
    options = case(epochs=1, rows=16)
    with pytest.warns(UserWarning, match="monitor='val_f1' is not among the logs .*loss"):
        resume_cases.model(options).fit(
            **resume_cases.data(options), callbacks=[training.Resume(tmp_path, monitor="val_f1")]
        )
    with pytest.raises(ValueError, match="no best checkpoint"):
        training.Resume(tmp_path).restore_best(resume_cases.model(options))


# ---- other callbacks ------------------------------------------------------------------------------------------


def test_callbacks_go_on_with_what_they_knew(tmp_path):
    def callbacks():
        return [
            keras.callbacks.EarlyStopping("val_loss", patience=2, mode="max", restore_best_weights=True),
            training.SwapEMAWeights(swap_on_epoch=True),
        ]

    options = case(epochs=8, rows=24, ema=True, accumulation=2)
    one = callbacks()
    whole = fit(options, tmp_path / "whole", *one)
    assert one[0].stopped_epoch  # it did stop
    interrupted(options, tmp_path / "run", *callbacks(), Interrupt(5))
    interrupted(options, tmp_path / "run", *callbacks(), Interrupt(epochs=2))
    other = callbacks()
    assert_equal(whole, fit(options, tmp_path / "run", *other))
    assert one[0].stopped_epoch == other[0].stopped_epoch or not other[0].stopped_epoch
    assert_equal(whole, fit(options, tmp_path / "run", *callbacks()))  # stopped it stays


class Spike(keras.callbacks.Callback):
    """Breaks the weights before some batches, as a blow-up does."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) in self.at:
            self.model.trainable_weights[0].assign(self.model.trainable_weights[0] * np.nan)


def test_recover_goes_back_to_the_same_state_at_the_same_rate(tmp_path):
    spikes = {(0, 3), (1, 2), (1, 5), (2, 1)}

    def callbacks():
        return training.Recover(every=3, limit=9), Spike(spikes)

    options = case(accumulation=4)
    with pytest.warns(UserWarning, match="Recover"):
        whole = fit(options, tmp_path / "whole", *callbacks())
        for count in (5, 4):  # after the first spike, and after the second
            interrupted(options, tmp_path / "run", *callbacks(), Interrupt(count))
        recover, spike = callbacks()
        assert_equal(whole, fit(options, tmp_path / "run", recover, spike))
    assert [event.factor for event in recover.events] == [0.5, 0.25, 0.125, 0.0625]


# ---- what is refused ------------------------------------------------------------------------------------------


def test_what_cannot_be_resumed_is_refused(tmp_path):
    options = case(rows=16)
    model, given = resume_cases.model(options), resume_cases.data(options)
    ids, labels = given["x"], given["y"]
    resume = training.Resume(tmp_path)
    with pytest.raises(TypeError, match="has no positions"):
        model.fit(((ids, labels) for _ in range(3)), callbacks=[resume])
    with pytest.raises(ValueError, match="One Resume per fit"):
        model.fit(**given, callbacks=[resume, training.Resume(tmp_path)])
    with pytest.raises(ValueError, match="pass sample_weight"):
        model.fit(**given, class_weight={0: 2.0}, callbacks=[resume])
    with pytest.raises(ValueError, match="steps_per_epoch goes with"):
        model.fit(**given, steps_per_epoch=2, callbacks=[resume])
    with pytest.raises(ValueError, match="never ends"):
        model.fit(resume_cases.data(case(data="repeated"))["x"], callbacks=[resume])
    with pytest.raises(ValueError, match="says that it has 9"):
        model.fit(training.Epochs(lambda *_: resume_cases.data(case(data="dataset"))["x"], 9), callbacks=[resume])
    with pytest.raises(ValueError, match="as many rows"):
        model.fit(ids, labels[:-1], callbacks=[resume])
    for arguments in ({"save_freq": 0}, {"keep": 0}, {"mode": "best"}):
        with pytest.raises(ValueError):
            training.Resume(tmp_path, **arguments)
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    with pytest.raises(TypeError, match="DistributedModel"):
        plain.fit(np.zeros((2, 2)), np.zeros(2), callbacks=[resume], verbose=0)
