"""AdaLoRA's budget while a model is trained: the importance beside numpy, and the ranks left."""

import keras
import numpy as np
import pytest
import tiny
from adapter_cases import classifier, outputs, rows

from tfxformer.compression import AdaLoRA, Adapters, AllocateRanks, LoRA

pytestmark = pytest.mark.usefixtures("eager")
BATCH, UPDATES = 8, 6


def prepared(num_layers=2, **arguments):
    keras.utils.set_random_seed(0)  # of new factors
    model = classifier(encoder__num_layers=num_layers)
    adapters = Adapters(model)
    adapters.add("films", AdaLoRA(rank=4, targets=("query", "feed_forward/output"), **arguments))
    for index, part in enumerate(adapters.layers.values()):
        part.e.assign((index + 1) * np.random.default_rng(index).normal(0, 0.1, 4))  # not all layers alike
    return model, adapters


def fit(model, callback, epochs=UPDATES, **compiled):
    """One update an epoch, all on the same batch."""
    x, y = rows(model, BATCH)
    model.compile(**{"optimizer": keras.optimizers.SGD(0.05), **compiled})
    return model.fit(x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback]).history


def ranks(adapters):
    return [int(np.count_nonzero(part.e)) for part in adapters.layers.values()]


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_importance_is_that_of_the_paper(jit_compile, plain_kernels, traced):
    """By plain SGD a gradient is (before - after) / rate: the sums again, from the weights between the updates."""
    model, adapters = prepared(num_layers=1)
    callback = AllocateRanks(adapters, rank=2, begin_step=UPDATES, end_step=UPDATES + 1)
    parts = list(adapters.layers.values())
    seen = []

    class Between(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.note()

        def on_train_batch_end(self, batch, logs=None):
            self.note()
            scores.append(callback._scores())

        def note(self):
            seen.append([[np.array(x) for x in (part.a, part.e, part.b)] for part in parts])

    scores = []
    x, y = rows(model, BATCH)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=jit_compile)
    model.fit(x, y, batch_size=BATCH, epochs=UPDATES - 1, shuffle=False, verbose=0, callbacks=[callback, Between()])
    importance = [[np.zeros_like(x) for x in part] for part in seen[0]]
    change = [[np.zeros_like(x) for x in part] for part in seen[0]]
    for before, after, found in zip(seen[:-1], seen[1:], scores, strict=True):
        wanted = []
        for index in range(len(parts)):
            of = []
            for which in range(3):
                w = before[index][which]
                now = np.abs(w * (w - after[index][which]) / 0.05)
                importance[index][which] = 0.85 * importance[index][which] + 0.15 * now
                difference = np.abs(now - importance[index][which])
                change[index][which] = 0.85 * change[index][which] + 0.15 * difference
                of.append(importance[index][which] * change[index][which])
            wanted.append(of[0].mean(axis=0) + of[1] + of[2].mean(axis=1))
        np.testing.assert_allclose(found, wanted, rtol=0.02, atol=1e-3 * np.max(wanted))


def test_the_least_important_go_and_stay_away(plain_kernels):
    model, adapters = prepared()
    before = tiny.weights(model)
    callback = AllocateRanks(adapters, rank=1, begin_step=1, end_step=4, frequency=1)
    history = fit(model, callback)
    count = len(adapters.layers)
    assert count == 4 and sum(ranks(adapters)) == count
    assert len(set(ranks(adapters))) > 1  # of all layers together, not of each alone
    assert [callback.budget(step) for step in (0, 1, 2, 3, 4, 9)] == [16, 16, 8, 4, 4, 4]
    np.testing.assert_allclose(history["rank"], [4, 2, 1, 1, 1, 1], atol=1.0)
    assert history["rank"][3:] == [1.0, 1.0, 1.0]  # held by the optimizer's own step after the end
    assert all(part.e.constraint is None for part in adapters.layers.values())
    after = tiny.weights(model)
    frozen = [path for path in before if "films" not in path and not path.startswith("classifier")]
    assert all((before[path] == after[path]).all() for path in frozen)
    wanted = outputs(model)
    adapters.merge()
    np.testing.assert_allclose(outputs(model), wanted, atol=1e-6)


def test_a_fit_that_ends_before_the_schedule_is_brought_to_the_end(plain_kernels):
    model, adapters = prepared()
    fit(model, AllocateRanks(adapters, rank=2, begin_step=0, end_step=100), epochs=2)
    assert sum(ranks(adapters)) == 2 * len(adapters.layers)


def test_the_factors_become_more_orthogonal(plain_kernels):
    def distance(adapters):
        parts = adapters.layers.values()
        return sum(np.linalg.norm(np.asarray(part.a).T @ np.asarray(part.a) - np.eye(4)) for part in parts)

    results = {}
    for orthogonality in (0.0, 5.0):
        keras.utils.set_random_seed(0)
        model, adapters = prepared(num_layers=1, orthogonality=orthogonality)
        start = distance(adapters)
        fit(model, keras.callbacks.Callback(), optimizer=keras.optimizers.Adam(0.02))
        results[orthogonality] = distance(adapters) / start
    assert results[5.0] < 0.9 < results[0.0] * 1.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank is an integer of 1 or more; got 0"),
        ({"end_step": 2}, "end_step is an integer of 3 or more; got 2"),
        ({"frequency": 1.5}, "frequency is an integer of 1 or more; got 1.5"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        AllocateRanks(None, **{"rank": 2, "begin_step": 2, "end_step": 9, **arguments})


def test_another_kind_and_too_many_ranks():
    model, adapters = prepared()
    with pytest.raises(ValueError, match="rank=4 is to be below the adapter's 4"):
        fit(model, AllocateRanks(adapters, rank=4, begin_step=0, end_step=2))
    adapters.add("books", LoRA())
    with pytest.raises(ValueError, match="the active adapter is 'books', none of that kind"):
        fit(model, AllocateRanks(adapters, rank=2, begin_step=0, end_step=2))
