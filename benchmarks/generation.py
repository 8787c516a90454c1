"""Greedy generation by a random model of SmolLM2-135M's shape on this CPU: ours and torch's, both in float32.

    python benchmarks/generation.py --rounds 9

Thirty layers, 576 wide, 9 heads of queries and 3 of keys and values, feed-forward 1536, vocabulary 49152, the token
table tied to the logits. One prompt of 16 tokens, 64 new ones. Ours is `generation.generate` with its loop compiled
by XLA, and without; torch's is `transformers`' own `generate` with its cache. Two threads each.
"""

from __future__ import annotations

import argparse

import harness
import numpy as np

PRESET, PROMPT, NEW = "smollm2-135m", 16, 64


def prompt() -> list[int]:
    """The same ids for every peer."""
    return np.random.default_rng(0).integers(0, 49152, PROMPT).tolist()


def _ours(jit_compile: bool):
    import tensorflow as tf

    import tfxformer
    from tfxformer import generation, tasks

    tf.config.threading.set_intra_op_parallelism_threads(2)
    model = tasks.CausalLM(tfxformer.build(PRESET))

    def step():
        (ids,) = generation.generate(model, [prompt()], NEW, jit_compile=jit_compile)
        if len(ids) != NEW:
            raise AssertionError(f"{len(ids)} tokens, not {NEW}.")

    return step


def xla_peer():
    return _ours(True)


def graph_peer():
    return _ours(False)


def torch_peer():
    import torch
    import transformers

    import tfxformer

    torch.set_num_threads(2)
    config = tfxformer.models.preset(PRESET)
    stack = config.decoder
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=stack.hidden_size,
            intermediate_size=stack.feed_forward.size,
            num_hidden_layers=stack.num_layers,
            num_attention_heads=stack.heads,
            num_key_value_heads=stack.key_value_heads,
            max_position_embeddings=stack.max_positions,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=None,
        )
    ).eval()
    ids = torch.tensor([prompt()])

    def step():
        with torch.no_grad():
            found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)
        if found.shape[1] != PROMPT + NEW:
            raise AssertionError(f"{found.shape[1] - PROMPT} tokens, not {NEW}.")

    return step


PEERS = {"tfxformer (XLA)": xla_peer, "tfxformer (graph)": graph_peer, "torch": torch_peer}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="which peers run")
    options = parser.parse_args()
    chosen = {name: PEERS[name] for name in PEERS if name in options.peers}
    machine = harness.machine(["tensorflow", "keras", "torch", "transformers"])
    ours = next(iter(chosen))
    results = harness.summary(harness.race(chosen, options.rounds, warmups=2), ours)
    for name, one in results.items():
        speed, ratio = NEW / one["seconds"]["median"], one["ours_is_faster"]
        quartiles = f"{ratio['low_quartile']:.2f}-{ratio['high_quartile']:.2f}"
        print(f"{name:20} {speed:7.1f} tokens/s   {ours} is {ratio['median']:.2f} times as fast ({quartiles})")
    if len(chosen) == len(PEERS):
        written = {"command": harness.command(), "rounds": options.rounds, "machine": machine, "peers": results}
        print(harness.write("generation", written))


if __name__ == "__main__":
    main()
