"""What callbacks see inside the training steps, on either backend; functions for `cases.py`."""

import cases
import keras
import numpy as np
import tiny
from watch import Watch  # of tests/training, where `cases` looks

from tfxformer import compression, tasks, training


def fit(cell) -> dict:
    """Norms, tokens a second and model FLOPs of a training."""
    tagger = cases.model_of(cell)
    accumulation = {"gradient_accumulation_steps": cell["accumulation"]} if cell["accumulation"] > 1 else {}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    tagger.compile(training.AdamW(1e-3, epsilon=1e-4, global_clipnorm=0.05, **accumulation), loss)
    x, y, weights = cases.data_of(tagger)
    watch, throughput = Watch(), training.Throughput(peak_flops=1e9)
    found = tagger.fit(
        x,
        y,
        sample_weight=weights,
        validation_data=(x, y),
        batch_size=cases.BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[watch, throughput],
    ).history
    norms = {"norms": np.array(watch.norms), "flops": np.array(throughput.flops_per_sample)}
    return norms | {name: np.array(found[name]) for name in ("tokens_per_second", "mfu", "loss", "val_loss")}


def allocate() -> dict:
    """AdaLoRA's ranks and factors after a fit that took some away, all begun with numpy's numbers."""
    classifier = tiny.perturb(tasks.TextClassifier(tiny.backbone(), ["negative", "positive"], sequence_length=12))
    adapters = compression.Adapters(classifier)
    adapters.add("films", compression.AdaLoRA(rank=4, targets=("query", "feed_forward/output"), dropout=0.0))
    rng = np.random.default_rng(0)
    for part in adapters.layers.values():
        for factor in (part.a, part.e, part.b):
            factor.assign(rng.normal(0, 0.3, factor.shape))
    ids = rng.integers(5, tiny.VOCABULARY_SIZE, (cases.BATCH, 12)).astype("int32")
    x = {one.name: np.ones_like(ids) if "mask" in one.name else np.zeros_like(ids) for one in classifier.inputs}
    x = {name: ids if name.endswith("token_ids") else array for name, array in x.items()}
    classifier.compile(keras.optimizers.SGD(0.05))
    callback = compression.AllocateRanks(adapters, rank=2, begin_step=1, end_step=4, frequency=1)
    settings = {"batch_size": cases.BATCH, "epochs": 6, "shuffle": False, "verbose": 0}
    history = classifier.fit(x, (ids[:, 0] % 2).astype("int32"), callbacks=[callback], **settings).history
    parts = list(adapters.layers.values())
    found = {"ranks": np.array([np.count_nonzero(part.e) for part in parts]), "mean rank": np.array(history["rank"])}
    for index, part in enumerate(parts):
        found |= {f"{index} {name}": np.array(getattr(part, name)) for name in "aeb"}
    return found


def watch() -> dict:
    """All of it, by name."""
    found = {f"ranks {name}": array for name, array in allocate().items()}
    for cell in (cases.cell("bert", 0.0, 4), cases.cell("llama", 0.0, 1)):
        found |= {f"{cell['family']} {name}": array for name, array in fit(cell).items()}
    return found
