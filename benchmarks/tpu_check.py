"""BERT-base and GPT-2 124M compiled for a TPU v5e: memory, the largest batch, seconds of each compile.

    python benchmarks/tpu_check.py [--search-seconds 270]

Nothing is run on a TPU: libtpu's compiler, which needs none, says what the steps take (`tfxformer tpu-check`). The
train step is that of `fit` with the task's default AdamW, mixed_bfloat16, dropout on; masked-lm computes the logits
of its hidden places, causal-lm those of all. Each command runs in a process of its own and searches the largest
batch; the oversize batch is twice the one found. Figures of memory and FLOPs are the compiler's, the same on every
machine; seconds are not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import harness

CASES = (("bert-base", "masked-lm", 128), ("gpt2", "causal-lm", 128), ("gpt2", "causal-lm", 1024))
OVERSIZE = 2


def check(model: str, task: str, length: int, *options: str) -> tuple[dict, str]:
    """What `tfxformer tpu-check --json` says, and its command."""
    words = ["tpu-check", "--model", model, "--task", task, "--sequence-length", str(length), *options]
    code = "from tfxformer.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if not done.stdout:
        raise RuntimeError(f"tfxformer {' '.join(words)} ended with code {done.returncode}.")
    return {**json.loads(done.stdout), "exit_code": done.returncode}, f"tfxformer {' '.join(words)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search-seconds", type=float, default=270.0, help="of each search (default: %(default)s)")
    parser.add_argument("--cases", type=int, nargs="+", default=[0, 1, 2], help="of bert, gpt2 at 128, gpt2 at 1024")
    arguments = parser.parse_args()
    path = harness.RESULTS / "tpu_check.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    cases = results.get("cases", {})
    for model, task, length in (CASES[index] for index in arguments.cases):
        machine = harness.machine(["tensorflow", "keras", "jax", "jaxlib", "libtpu"])
        found, command = check(model, task, length, "--search-seconds", str(arguments.search_seconds))
        oversize = OVERSIZE * (found["largest_batch"] or 1)
        refused, refused_command = check(model, task, length, "--batch-size", str(oversize))
        cases[f"{model}-{length}"] = {
            "command": command,
            "machine": machine,
            **found,
            "oversize": {"command": refused_command, "exit_code": refused["exit_code"], **refused["steps"][0]},
        }
        print(f"{command}: largest batch {found['largest_batch']} in {found['search_seconds']:.0f} s")
        print(harness.write("tpu_check", {"command": harness.command(), "cases": cases}))


if __name__ == "__main__":
    main()
