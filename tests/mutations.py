"""Whether the plain suite sees deliberate faults: each is planted alone in a copy of the project, and the suite is run.

    python tests/mutations.py [NAME ...] [--write]

prints a line a fault and says how many were seen; `--write` keeps the table in tests/mutations.json: all of it, or the
lines of the faults that are named. The tests that stand nearest to the fault run first, then, where they pass, all of
the plain suite. It takes ten minutes of two idle cores, and ten more for each fault that the nearest tests do not see.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_suffix(".json")
WANTED = 23  # of 25
PLAIN = "not reference and not extra"  # the plain suite, whatever is installed beside it


@dataclass(frozen=True)
class Fault:
    """One wrong line.

    Attributes:
        path: the file, below tfxformer/.
        right, wrong: what stands there, once, and what is put in its place.
        kind: what sort of slip it is.
        nearest: the test files or folders that run first, below tests/.
    """

    path: str
    right: str
    wrong: str
    kind: str
    nearest: str

    @property
    def name(self) -> str:
        """The module, as the command line names it."""
        return self.path.removesuffix(".py").replace("/", ".")


FAULTS = (
    Fault(
        "layers/attention/rotary.py",
        "ops.concatenate([-sine, sine], axis=-1)",
        "ops.concatenate([sine, -sine], axis=-1)",
        "a sign",
        "layers/attention/test_rotary.py",
    ),
    Fault(
        "layers/attention/masks.py",
        "near = distance < window if causal",
        "near = distance <= window if causal",
        "an off-by-one",
        "layers/attention models",
    ),
    Fault(
        "layers/normalization.py",
        "centred * scale + beta",
        "centred * scale - beta",
        "a sign",
        "layers/test_normalization.py",
    ),
    Fault(
        "layers/adapters/low_rank.py",
        "((0, 0), (before, after))",
        "((0, 0), (after, before))",
        "two swapped",
        "layers/adapters compression/adapters",
    ),
    Fault(
        "text/generation/sampling.py",
        "keepdims=True) + ops.log(p)",
        "keepdims=True) - ops.log(p)",
        "a sign",
        "text/generation generation",
    ),
    Fault(
        "generation/beams.py",
        "length = state.slot - limits.first + 1",
        "length = state.slot - limits.first",
        "an off-by-one",
        "generation",
    ),
    Fault(
        "text/generation/stopping.py",
        "min(len(text), len(stop) - 1)",
        "min(len(text), len(stop) - 2)",
        "an off-by-one",
        "text/generation",
    ),
    Fault(
        "text/generation/token_rules.py",
        "ops.equal(rows.slot, rows.end - 1)",
        "ops.equal(rows.slot, rows.end)",
        "an off-by-one",
        "text generation right_answers/test_generation_settings.py",
    ),
    Fault("data/targets/masking.py", "chosen & (fate < 0.8)", "chosen & (fate < 0.9)", "a number", "data/targets"),
    Fault(
        "data/targets/packing.py", "numbers - numbers[first] + 1", "numbers - numbers[first]", "an off-by-one", "data"
    ),
    Fault(
        "data/targets/spans.py",
        "before.any(axis=1) & after.any(axis=1) & (spans",
        "before.any(axis=1) & (spans",
        "a dropped condition",
        "data/targets tasks/test_question_answering.py",
    ),
    Fault(
        "data/records/order.py",
        "position = worker + position * workers",
        "position = position * workers",
        "a dropped term",
        "data/records",
    ),
    Fault(
        "training/optimizers/schedules.py",
        "0.5 * (1.0 + ops.cos",
        "0.5 * (1.0 - ops.cos",
        "a sign",
        "training/optimizers",
    ),
    Fault(
        "training/step/loss_terms.py",
        "before + record.weight * record.value",
        "before + record.value",
        "a dropped weight",
        "training/step",
    ),
    Fault(
        "training/resume/data_positions.py",
        "order[batch * self.batch_size :]",
        "order[(batch + 1) * self.batch_size :]",
        "an off-by-one",
        "training/resume",
    ),
    Fault(
        "compression/weights/ranking.py",
        "tf.cumsum(tf.cast(equal, tf.int32)) <= room",
        "tf.cumsum(tf.cast(equal, tf.int32)) < room",
        "an off-by-one",
        "compression/weights",
    ),
    Fault(
        "compression/distillation/divergences.py",
        "return temperature**2 * ops.sum(",
        "return temperature * ops.sum(",
        "a power",
        "compression/distillation",
    ),
    Fault(
        "compression/smaller/structured.py",
        "np.argsort(-scores, kind",
        "np.argsort(scores, kind",
        "a sign",
        "compression/smaller",
    ),
    Fault(
        "checkpoints/layout.py",
        "groups=1 if module.by is None else _number(module.by, stack)",
        "groups=1",
        "a dropped case",
        "checkpoints",
    ),
    Fault(
        "checkpoints/files/safetensors.py",
        "if position != data_bytes",
        "if position > data_bytes",
        "a weaker check",
        "checkpoints/files",
    ),
    Fault(
        "runtime/generation/decoding.py",
        "if self.position >= self.cache_length",
        "if self.position > self.cache_length",
        "an off-by-one",
        "runtime",
    ),
    Fault("runtime/format/checksum.py", "if place < 0:", "if place > 0:", "a skipped check", "runtime right_answers"),
    Fault(
        "export/quantization/calibration.py",
        "(100.0 - percentile) / 200.0",
        "(100.0 - percentile) / 100.0",
        "a number",
        "export/quantization",
    ),
    Fault(
        "files.py",
        "        part.replace(path)\n",
        "        path.write_bytes(part.read_bytes())\n",
        "a skipped rename",
        "test_files.py right_answers/test_whole_or_nothing.py",
    ),
    Fault(
        "tasks/base/class_weights.py",
        "rank = 2 if task.output_kinds.tokens else 1",
        "rank = 1",
        "a dropped case",
        "right_answers/test_labels_and_batches.py right_answers/test_losses_and_metrics.py",
    ),
)


def misfits(root: Path = ROOT) -> list[str]:
    """The faults that cannot be planted, since what they replace does not stand in its file exactly once."""
    found = []
    for fault in FAULTS:
        path = root / "tfxformer" / fault.path
        times = path.read_text(encoding="utf-8").count(fault.right) if path.is_file() else 0
        if times != 1:
            found.append(f"{fault.path} has {fault.right!r} {times} times")
    return found


def copy_project(folder: Path) -> Path:
    """A copy of the tracked files, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def first_failure(root: Path, tests: list[str]) -> str | None:
    """The first test that fails in a copy of the project, None where all pass.

    Raises:
        RuntimeError: where pytest could not run them.
    """
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "--dist", "loadfile", "-m", PLAIN, *tests],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    if failed is None:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1]


def plant(fault: Fault, root: Path) -> dict:
    """Runs the suite on a copy with one fault: a row of the table."""
    path, began = root / "tfxformer" / fault.path, time.monotonic()
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(fault.right, fault.wrong), encoding="utf-8")
    try:
        seen = first_failure(root, [f"tests/{name}" for name in fault.nearest.split()])
        near = seen is not None
        seen = seen or first_failure(root, [])
    finally:
        path.write_text(right, encoding="utf-8")
    seconds = round(time.monotonic() - began)
    return {"fault": fault.name, "kind": fault.kind, "seen_by": seen, "by_the_nearest": near, "seconds": seconds}


def write(rows: list[dict]) -> None:
    """Keeps these rows, and those of the faults that were not planted this time."""
    kept = {row["fault"]: row for row in json.loads(RESULTS.read_text())["faults"]} if RESULTS.is_file() else {}
    kept |= {row["fault"]: row for row in rows}
    rows = [kept[fault.name] for fault in FAULTS if fault.name in kept]
    seen = sum(row["seen_by"] is not None for row in rows)
    RESULTS.write_text(json.dumps({"seen": seen, "faults": rows}, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="faults by module, such as layers.attention.rotary; all by default")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS.name}")
    arguments = parser.parse_args()
    if unfit := misfits():
        raise SystemExit("Faults that cannot be planted:\n" + "\n".join(unfit))
    chosen = [fault for fault in FAULTS if not arguments.names or fault.name in arguments.names]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = copy_project(Path(folder))
        for fault in chosen:
            rows.append(plant(fault, root))
            print(
                f"{fault.name}: {fault.kind}: {rows[-1]['seen_by'] or 'NOT SEEN'} ({rows[-1]['seconds']} s)", flush=True
            )
    seen = sum(row["seen_by"] is not None for row in rows)
    print(f"{seen} of {len(rows)} faults were seen.")
    if arguments.write:
        write(rows)
    return 0 if seen >= min(WANTED, len(rows)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
