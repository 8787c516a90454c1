"""Training and decoding on a GPU or a TPU: ours and KerasHub on JAX, Hugging Face and a GPT like nanoGPT's on torch.

    python benchmarks/accelerator.py [--cells "gpt2 16x1024"] [--peers tfxformer "hugging face"] [--rounds 9]
    python benchmarks/accelerator.py --tiny

GPT-2 124M on 16 x 1024 tokens without dropout; BERT-base's masked language modelling on 64 x 512 and 256 x 128, 15 % of
the places, dropout 0.1; MiniLM-L6 fine-tuned on 256 x 128; and GPT-2 decoding 128 tokens behind 128, at batch 1 and 32.
All in bfloat16 with float32 weights (torch's decoding: bfloat16 weights), AdamW, gradients clipped at norm 1. Ours and
KerasHub are timed as `fit` and `generate` run them, an epoch a measurement; torch's models are compiled, with scaled
dot product attention. Every peer has the same ids and trains on them again and again: the losses stand beside each
other to show that all of them learn. `--tiny` rehearses all of it on small models, on a CPU too, and writes no results.

Needs JAX, torch, transformers and keras-hub for the accelerator in one environment, and its memory for all peers of a
cell at once; a TPU has one process at a time: `--in-turn`, where no peer runs beside another.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peers share the memory

import harness
from peers.accelerator_cells import CELLS, Cell, tiny

OURS = "tfxformer"
PEERS = {
    OURS: ("accelerator_keras", "tfxformer"),
    "tfxformer, vocabulary as stored": ("accelerator_keras", "tfxformer_as_stored"),
    "keras-hub": ("accelerator_keras", "keras_hub"),
    "hugging face": ("accelerator_torch", "hugging_face"),
    "nanogpt": ("accelerator_torch", "nano_gpt"),
}
OF_GPT = ("tfxformer, vocabulary as stored", "nanogpt")  # these run GPT-2's training alone
# Dense bfloat16 operations a second, from the vendors' data sheets, by a part of the device's name.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "v5 lite": 197e12, "v6 lite": 918e12}


@dataclass(frozen=True)
class Peer:
    """A peer on a cell, ready to be sent to a process of its own."""

    name: str
    cell: Cell

    @property
    def __name__(self):
        return self.name

    def __call__(self):
        module, function = PEERS[self.name]
        return getattr(__import__(f"peers.{module}", fromlist=[function]), function)(self.cell)


def device() -> str:
    """The accelerator's name, asked for in a process of its own: this one must not hold it."""
    import subprocess

    code = "import jax; print(jax.devices()[0].device_kind)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def measured(name: str, cell: Cell, peers: list[str], rounds: int, in_turn: bool, peak: float | None) -> dict:
    """The peers' times on a cell, tokens a second, losses and memory."""
    chosen = {peer: Peer(peer, cell) for peer in peers if cell.kind == "causal" or peer not in OF_GPT}
    groups = [{peer: one} for peer, one in chosen.items()] if in_turn else [chosen]
    times, facts, begun = {}, {}, time.perf_counter()
    for group in groups:
        times |= harness.race(group, rounds, warmups=2, facts=facts)
    found = harness.summary(times, OURS if OURS in times else next(iter(times)))
    for peer, one in found.items():
        one |= facts[peer]
        one["tokens_per_second"] = cell.tokens / one["seconds"]["median"]
        if peak and cell.kind != "decoding":
            one["flop_utilisation"] = one["tokens_per_second"] * cell.flops_per_token() / peak
    print(f"{name} ({time.perf_counter() - begun:.0f} s, compiling included)")
    for peer, one in found.items():
        print("  " + line(peer, one, cell))
    return found


def line(peer: str, one: dict, cell: Cell) -> str:
    """A peer's figures."""
    ratio, count = one["ours_is_faster"], cell.steps if cell.kind != "decoding" else cell.length
    parts = [f"{peer:32s} {one['seconds']['median'] / count * 1e3:8.2f} ms {one['tokens_per_second']:9,.0f} tokens/s"]
    parts.append(f"ours {ratio['median']:.2f}x ({ratio['low_quartile']:.2f} to {ratio['high_quartile']:.2f})")
    if "flop_utilisation" in one:
        parts.append(f"utilisation {one['flop_utilisation']:.3f}")
    if one["peak_gib"] is not None:
        parts.append(f"{one['peak_gib']:.1f} GiB")
    if "losses" in one:
        parts.append(f"loss {one['losses'][0]:.3f} to {one['losses'][-1]:.3f}")
    return ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--in-turn", action="store_true", help="one peer after the other, as a TPU needs it")
    parser.add_argument("--tiny", action="store_true", help="small models, to rehearse; writes no results")
    arguments = parser.parse_args()

    name = device()
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    packages = ["keras", "jax", "jaxlib", "libtpu", "torch", "transformers", "keras-hub"]
    machine = {"device": name, "peak_flops": peak, **harness.machine(packages)}
    results = {"command": harness.command(), "rounds": arguments.rounds, "machine": machine, "cells": {}}
    print(f"{name}: " + ("no peak known, so no utilisation" if peak is None else f"{peak / 1e12:.0f} TFLOP/s"))
    for key in arguments.cells:
        cell = tiny(CELLS[key]) if arguments.tiny else CELLS[key]
        results["cells"][key] = measured(key, cell, arguments.peers, arguments.rounds, arguments.in_turn, peak)
        if not arguments.tiny:  # after each cell: what was measured stays where a later one fails
            print(harness.write("accelerator", results))
    if arguments.tiny:
        print(json.dumps(results["machine"], indent=1))


if __name__ == "__main__":
    main()
