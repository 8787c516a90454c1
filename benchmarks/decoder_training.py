"""An iteration of training a small GPT from scratch on this CPU: ours, and the same shape in transformers on torch.

    python benchmarks/decoder_training.py --rounds 15

nanoGPT's CPU configuration: 4 layers, 4 heads, 128 wide, context 64, batch 12, no dropout, GPT-2's architecture with
biases, float32; AdamW (decay 0.1 on matrices, beta2 0.99), gradients clipped at norm 1, a warmup and a cosine. The
text is random characters of a vocabulary of 80, its windows are drawn anew for each iteration. Ours is what `fit` runs
with `steps_per_execution`; torch's is nanoGPT's loop around `transformers.GPT2LMHeadModel`, fused AdamW, its loss
read every tenth iteration. A second table has torch on one thread: for so small a model the second may not pay.
"""

from __future__ import annotations

import argparse
import math

import harness
import numpy as np

LAYERS, HIDDEN, HEADS, CONTEXT, VOCABULARY, BATCH = 4, 128, 4, 64, 80, 12
PEAK, FLOOR, WARMUP, TOTAL, DECAY, BETA_2, CLIP = 1e-3, 1e-4, 100, 10**6, 0.1, 0.99, 1.0
ITERATIONS = 20  # of one measured call


def text():
    """The ids of a long text, the same for every peer."""
    return np.random.default_rng(0).integers(0, VOCABULARY, 200_000, dtype="int32")


def tfxformer_peer():
    import tensorflow as tf

    import tfxformer
    from tfxformer import models, tasks, training

    config = models.preset("gpt-nano").replace(vocabulary_size=VOCABULARY)
    stack = config.decoder
    shape = (stack.num_layers, stack.hidden_size, stack.heads, stack.feed_forward.size, stack.max_positions)
    assert shape == (LAYERS, HIDDEN, HEADS, 4 * HIDDEN, CONTEXT), shape
    assert (stack.dropout, stack.attention_dropout, stack.attention_of(0).bias) == (0.0, 0.0, True), stack
    model = tasks.CausalLM(tfxformer.build(config))
    schedule = training.WarmupCosine(PEAK, TOTAL, WARMUP, floor=FLOOR)
    optimizer = training.AdamW(schedule, DECAY, beta_2=BETA_2, global_clipnorm=CLIP)
    model.compile(optimizer, steps_per_execution=ITERATIONS)
    windows = tf.nest.map_structure(tf.constant, model.windows(text(), 500 * BATCH))

    def batch(index):  # one slice a batch, as Keras' fit takes arrays
        return tf.nest.map_structure(lambda x: x[index * BATCH : (index + 1) * BATCH], windows)

    data = iter(tf.data.Dataset.range(500).repeat().map(batch).prefetch(2))
    model.make_train_function()

    def step():
        check(float(np.asarray(model.train_function(data)["loss"])))

    return step


def torch_peer(threads: int | None = None):
    import torch
    import transformers

    if threads is not None:
        torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).train()
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, BETA_2), fused=True)
    data, draw, count = torch.from_numpy(text()).long(), np.random.default_rng(0), 0

    def rate(step):
        if step < WARMUP:
            return PEAK * (step + 1) / (WARMUP + 1)
        return FLOOR + (PEAK - FLOOR) * 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (TOTAL - WARMUP)))

    def step():
        nonlocal count
        for index in range(ITERATIONS):
            for group in optimizer.param_groups:
                group["lr"] = rate(count)
            count += 1
            begins = draw.integers(0, len(data) - CONTEXT, BATCH)
            ids = torch.stack([data[begin : begin + CONTEXT] for begin in begins])
            targets = torch.stack([data[begin + 1 : begin + CONTEXT + 1] for begin in begins])
            logits = model(input_ids=ids, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if index % 10 == 9:
                check(loss.item())

    return step


def torch_one_thread_peer():
    return torch_peer(1)


def check(loss: float) -> None:
    """Stops a run that has gone wrong: its times would mean nothing."""
    if not np.isfinite(loss):
        raise FloatingPointError(f"The loss became {loss}.")


PEERS = {"tfxformer": tfxformer_peer, "torch": torch_peer, "torch, 1 thread": torch_one_thread_peer}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=3, help=f"times {ITERATIONS} iterations (default: %(default)s)")
    arguments = parser.parse_args()

    results = {
        "what": f"one training iteration, {LAYERS} layers, {HIDDEN} wide, batch {BATCH}, context {CONTEXT}, float32",
        "command": harness.command(),
        "rounds": arguments.rounds,
        "machine": harness.machine(["tensorflow", "keras", "torch", "transformers"]),
    }
    raced = harness.race(PEERS, arguments.rounds, arguments.calls)
    one = {
        name: [harness.Time(*(seconds / ITERATIONS for seconds in time)) for time in times]
        for name, times in raced.items()
    }
    results["peers"] = harness.summary(one, "tfxformer")
    print(results["machine"]["processor"])
    for name, peer in results["peers"].items():
        ratio = peer["ours_is_faster"]
        print(
            f"{name:16s} {peer['seconds']['median'] * 1e3:6.1f} ms   tfxformer is {ratio['median']:.2f}x as fast"
            f" ({ratio['low_quartile']:.2f} to {ratio['high_quartile']:.2f})"
        )
    print(harness.write("decoder_training", results))


if __name__ == "__main__":
    main()
