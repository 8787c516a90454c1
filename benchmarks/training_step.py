"""A training step of the MiniLM shape on this CPU: ours, KerasHub's and torch's, in one precision.

    python benchmarks/training_step.py --rounds 15 [--dtype float32] [--length 64]

Six layers, 384 wide, 12 heads, feed-forward 1536, vocabulary 30522; two labels, batch 32, dropout 0.1, AdamW,
gradients clipped by their global norm. `bfloat16` is mixed precision (float32 weights, bfloat16 products),
`float32` is float32 throughout. Each peer's step is the one its users get: our task and KerasHub's classifier
as `fit` runs them, torch with its fused AdamW, under autocast for bfloat16. Ours computes the last layer for the
first token alone, since the classifier reads nothing else. Each precision and length has a results file.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import harness
import numpy as np

LAYERS, HIDDEN, HEADS, FEED_FORWARD, VOCABULARY = 6, 384, 12, 1536, 30522
BATCH, LABELS, DROPOUT = 32, 2, 0.1
LEARNING_RATE, WEIGHT_DECAY, CLIP = 5e-5, 0.01, 1.0
DTYPES = {"bfloat16": "mixed_bfloat16", "float32": "float32"}  # and Keras' policies


def batch(length):
    """Token ids and labels, the same for every peer; no padding, which all would compute alike."""
    random = np.random.default_rng(0)
    ids = random.integers(0, VOCABULARY, (BATCH, length), dtype="int32")
    return ids, random.integers(0, LABELS, BATCH, dtype="int32")


def keras_step(model, inputs, labels):
    """The step that `fit` runs, without its callbacks."""
    import tensorflow as tf

    data = iter(tf.data.Dataset.from_tensors((inputs, labels)).repeat())
    model.make_train_function()

    def step():
        loss = float(np.asarray(model.train_function(data)["loss"]))
        if not np.isfinite(loss):
            raise FloatingPointError(f"The loss became {loss}.")

    return step


def tfxformer_peer(dtype, length):
    import keras

    import tfxformer
    from tfxformer import tasks, training

    backbone = tfxformer.build("minilm-l6", dtype=DTYPES[dtype])
    stack = backbone.config.encoder
    shape = (stack.num_layers, stack.hidden_size, stack.heads, stack.feed_forward.size)
    assert shape == (LAYERS, HIDDEN, HEADS, FEED_FORWARD), shape
    assert (stack.dropout, stack.attention_dropout) == (DROPOUT, DROPOUT), stack
    model = tasks.TextClassifier(backbone, labels=[str(label) for label in range(LABELS)])
    optimizer = training.adamw(10**6, LEARNING_RATE, warmup=0, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
    ids, labels = batch(length)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    return keras_step(model, {name: inputs[name] for name in model.input}, labels)


def keras_hub_peer(dtype, length):
    import keras
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=HIDDEN,
        intermediate_dim=FEED_FORWARD,
        dropout=DROPOUT,
        max_sequence_length=512,
        dtype=DTYPES[dtype],
    )
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=LABELS, preprocessor=None, dropout=DROPOUT)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
    ids, labels = batch(length)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    return keras_step(model, inputs, labels)


def torch_peer(dtype, length):
    torch = harness.training_torch()
    import transformers

    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        num_labels=LABELS,
    )
    model = transformers.BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    ids, labels = (torch.from_numpy(array).long() for array in batch(length))

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return step


@dataclass(frozen=True)
class Peer:
    """A peer in one precision and length, ready to be sent to a process of its own."""

    prepare: object
    dtype: str
    length: int

    @property
    def __name__(self):
        return self.prepare.__name__

    def __call__(self):
        return self.prepare(self.dtype, self.length)


PEERS = {"tfxformer": tfxformer_peer, "keras-hub": keras_hub_peer, "torch": torch_peer}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=2, help="steps of one measurement (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="precision (default: %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens of a text (default: %(default)s)")
    arguments = parser.parse_args()

    dtype, length = arguments.dtype, arguments.length
    results = {
        "what": f"batch {BATCH}, length {length}, {dtype}",
        "command": harness.command(),
        "rounds": arguments.rounds,
        "machine": harness.machine(["tensorflow", "keras", "keras-hub", "torch", "transformers"]),
    }
    times = harness.race(
        {name: Peer(peer, dtype, length) for name, peer in PEERS.items()}, arguments.rounds, arguments.calls
    )
    results["peers"] = harness.summary(times, "tfxformer")
    print(results["machine"]["processor"])
    for name, peer in results["peers"].items():
        peer["tokens_per_second"] = BATCH * length / peer["seconds"]["median"]
        ratio, by_processor = peer["ours_is_faster"], peer["ours_is_faster_by_processor"]["median"]
        print(
            f"{name:10s} {peer['seconds']['median'] * 1e3:7.0f} ms {peer['tokens_per_second']:7.0f} tokens/s"
            f"   tfxformer is {ratio['median']:.2f}x as fast ({ratio['low_quartile']:.2f}"
            f" to {ratio['high_quartile']:.2f}), {by_processor:.2f}x by processor seconds"
        )
    print(harness.write(f"training_step-{dtype}-{length}", results))


if __name__ == "__main__":
    main()
