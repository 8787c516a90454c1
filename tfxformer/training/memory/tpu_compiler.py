"""The TPU compiler in a process of its own: libtpu's, through jax; nothing is run, and no TPU is needed.

A process of its own, because libtpu is set up by environment variables, which are the user's, and because jaxlib and
TensorFlow each bring an XLA. `Compiler` starts it: this file's text again, whose `serve` answers a line for a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

INSTALL = 'pip install "tfxformer[tpu-check]" (jax and libtpu, which compile without a TPU)'
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # without it libtpu asks the metadata server of Google's cloud, and waits
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another check may run at the same time
}
_ENVIRONMENT = {**LIBTPU, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
COMPILE_SECONDS = 1200.0  # the largest model seen takes 370 s; a few programs keep libtpu busy for hours
_NEEDED = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Compiled(NamedTuple):
    """What the compiler said of one program.

    Attributes:
        fits: bool.
        seconds: float, of the compile.
        peak_bytes: int, at the worst moment, arguments included; None where it does not fit, or was left early.
        argument_bytes, temporary_bytes, code_bytes: int or None; arguments are weights, optimizer slots and the batch.
        flops: float, of one execution on one chip, or None.
        needed_bytes: int, the compiler's own figure of what does not fit; None where it fits.
        message: its words then, or "".
        program: str, of several chips the optimized program of one as text; else "".
    """

    fits: bool
    seconds: float
    peak_bytes: int | None = None
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    code_bytes: int | None = None
    flops: float | None = None
    needed_bytes: int | None = None
    message: str = ""
    program: str = ""


class CompilerError(RuntimeError):
    """The compiler refused a program for another reason than memory, or could not be started."""


class Compiler:
    """A running compiler for one kind of chip; a context manager.

    Args:
        topology: chips as libtpu names them, "v5e:1x1", "v5e:2x2", "v6e:1x1", ...; "cpu" is XLA's own CPU compiler,
            "cpu:8" for eight devices.

    Attributes:
        device: str, such as "TPU v5 lite".
        chips: int.
        memory_bytes: int, what the compiler lets a program have of a chip's memory; None for "cpu".
        versions: dict of str.

    Raises:
        ImportError: where jax or libtpu is not installed.
        ValueError: for an unknown topology.
    """

    def __init__(self, topology: str):
        self.topology = topology
        self._folder = tempfile.TemporaryDirectory(prefix="tfxformer-tpu-")
        self._log = (Path(self._folder.name) / "log").open("w+b")
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; a compile that is under way is given up."""
        self._stop()
        self._log.close()
        self._folder.cleanup()

    def compile(self, module: bytes, patience: float | None = None, partitions: int = 1) -> Compiled:
        """Compiles a serialized StableHLO module.

        Args:
            module: bytes.
            patience: float, seconds, or None. A program too large is refused long before one that fits is done, so
                after this time it is taken to fit, and left. Without it a compile is given up as one that does not fit
                after `COMPILE_SECONDS`.
            partitions: int, over how many chips the module itself says how it is split; the figures are of one chip.

        Raises:
            CompilerError: where the compiler fails, but not for memory.
        """
        path = Path(self._folder.name) / "module.bin"
        path.write_bytes(module)
        start = time.monotonic()
        self._process.stdin.write(f"{partitions} {path}\n")
        self._process.stdin.flush()
        answer = self._answer(patience or COMPILE_SECONDS)
        seconds = time.monotonic() - start
        if answer is None:
            self._stop()
            self._start()
            return Compiled(True, seconds) if patience else Compiled(False, seconds, message=_no_answer(seconds))
        if "error" not in answer:
            program = path.with_suffix(".hlo").read_text(encoding="utf-8") if partitions > 1 else ""
            return Compiled(True, seconds, **answer, program=program)
        needed = _amounts(answer["error"])
        if needed is None and "RESOURCE_EXHAUSTED" not in answer["error"]:
            raise CompilerError(f"The compiler for {self.device} fails: {_first_lines(answer['error'])}")
        return Compiled(False, seconds, needed_bytes=needed and needed[0], message=_first_lines(answer["error"]))

    def _start(self) -> None:
        # The text itself: a script's folder would stand first in sys.path, and its neighbours hide other modules.
        self._process = subprocess.Popen(
            [sys.executable, "-c", Path(__file__).read_text(encoding="utf-8"), self.topology],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **_ENVIRONMENT, "XLA_FLAGS": _flags(self.topology)},
        )
        ready = self._answer()
        if "error" in ready:
            raise _start_error(self.topology, ready["error"], ready["kind"])
        self.device, self.chips, self.versions = ready["device"], ready["chips"], ready["versions"]
        self.memory_bytes = _amounts(ready["full"])[1] if ready["full"] else None

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _answer(self, patience: float | None = None) -> dict | None:
        """The next line, or None where it does not come in time."""
        if patience is not None and not select.select([self._process.stdout], [], [], patience)[0]:
            return None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()
            raise CompilerError(f"The compiler's process ended with code {code}: {' '.join(said[-3:]) or 'no words'}")
        return json.loads(line)


def _flags(topology: str) -> str:
    """The user's flags of XLA, and for "cpu:8" the one that makes eight devices of a CPU."""
    kind, _, count = topology.partition(":")
    own = f"--xla_force_host_platform_device_count={count}" if kind == "cpu" and count else ""
    return f"{os.environ.get('XLA_FLAGS', '')} {own}".strip()


def _no_answer(seconds: float) -> str:
    return (
        f"The compiler gave no answer in {seconds:.0f} s, so nothing is known of this batch size. It does so with some "
        "shapes that are far too large: try a smaller batch."
    )


def _first_lines(message: str) -> str:
    return " ".join(message.split("See https://")[0].split())[:600]


def _amounts(message: str) -> tuple[int, int] | None:
    """(bytes needed, bytes there) of a refusal, or None where it is about something else."""
    found = _NEEDED.search(message)
    if found is None:
        return None
    needed, unit, there, unit_there = found.groups()
    return round(float(needed) * _UNITS[unit]), round(float(there) * _UNITS[unit_there])


def _start_error(topology: str, message: str, kind: str) -> Exception:
    if kind in ("ImportError", "ModuleNotFoundError"):
        return ImportError(f"The TPU compiler is an extra: {INSTALL}. Python says: {message}")
    if "INVALID_ARGUMENT" in message:
        return ValueError(
            f"Unknown topology {topology!r}; give a kind of chip and its grid: v5e:1x1 (Colab's one chip), v5e:2x2, "
            f"v5e:2x4, v6e:1x1, v6e:2x2, v4:2x2x1, v5p:2x2x1. libtpu says: {_first_lines(message)}"
        )
    if "Unable to initialize backend" in message or "libtpu" in message.lower():
        return ImportError(f"The TPU compiler cannot be loaded: {INSTALL}. jax says: {_first_lines(message)}")
    return CompilerError(f"The TPU compiler cannot be started: {_first_lines(message)}")


# ---- in the process of its own -------------------------------------------------------------------------------------


def serve(topology: str) -> None:
    """Compiles the modules whose paths come on stdin, one a line; answers a line of JSON each, until stdin ends."""
    # Answers go where stdout went; whatever libtpu prints goes to the log.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(function, *arguments):
        try:
            found = function(*arguments)
        except Exception as error:
            found = {"error": str(error), "kind": type(error).__name__}
        answers.write(json.dumps(found) + "\n")
        answers.flush()
        return found

    compiler = _Server(topology)
    if "error" in answer(compiler.start):
        return
    for line in sys.stdin:
        partitions, path = line.strip().split(" ", 1)
        answer(compiler.compile, int(partitions), path)


class _Server:
    def __init__(self, topology: str):
        self.topology, self.on_cpu = topology, topology.partition(":")[0] == "cpu"

    def start(self) -> dict:
        import jax
        import jaxlib

        versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__}
        if self.on_cpu:
            self.devices = jax.devices("cpu")
            return {"device": "CPU", "chips": len(self.devices), "versions": versions, "full": None}
        import importlib.metadata

        from jax.experimental import topologies

        try:
            versions["libtpu"] = importlib.metadata.version("libtpu")
        except importlib.metadata.PackageNotFoundError as error:
            raise ImportError(f"No package {error.name} is installed") from error
        self.devices = topologies.get_topology_desc(self.topology, platform="tpu").devices
        return {
            "device": self.devices[0].device_kind,
            "chips": len(self.devices),
            "versions": versions,
            "full": self._full(),
        }

    def _full(self) -> str:
        """What the compiler says of a program of 8 TiB: with it, how much memory it gives."""
        import jax

        sharding = jax.sharding.SingleDeviceSharding(self.devices[0])
        giant = jax.ShapeDtypeStruct((2**21, 2**19), "float32", sharding=sharding)
        try:
            jax.jit(lambda x: x + 1).lower(giant).compile()
        except jax.errors.JaxRuntimeError as error:
            return str(error)
        raise RuntimeError(f"{self.topology} takes 8 TiB: its compiler checks no memory")

    def compile(self, partitions: int, path: str) -> dict:
        import numpy as np
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib import xla_client
        from jax._src.lib.mlir import ir

        with mlir.make_ir_context():
            module = ir.Module.parse(Path(path).read_bytes())
            _drop_copies(module, ir)
            devices = self.devices[:partitions]
            client = devices[0].client
            make = client.compile_and_load if self.on_cpu else client.compile
            options = compiler.get_compile_options(
                num_replicas=1, num_partitions=partitions, device_assignment=np.array(devices)[None]
            )
            options = {"executable_devices": xla_client.DeviceList(tuple(devices)), "compile_options": options}
            try:
                executable = make(module, **options)
            except TypeError:  # jaxlib 0.7 takes a module as it is written
                executable = make(mlir.module_to_bytecode(module), **options)
        if partitions > 1:
            Path(path).with_suffix(".hlo").write_text(executable.hlo_modules()[0].to_string(), encoding="utf-8")
        memory, costs = executable.get_compiled_memory_stats(), executable.cost_analysis()
        costs = costs[0] if isinstance(costs, (list, tuple)) else costs
        flops = (costs or {}).get("flops")
        return {
            "peak_bytes": memory.peak_memory_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "code_bytes": memory.generated_code_size_in_bytes,
            "flops": flops if flops and flops > 0 else None,
        }


def _drop_copies(module, ir) -> None:
    """Removes mhlo.copy, which TensorFlow puts on every result: an identity that jaxlib's XLA does not take."""
    copies = []

    def visit(operation):
        if operation.name == "mhlo.copy":
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for operation in copies:
        operation.results[0].replace_all_uses_with(operation.operands[0])
        operation.erase()


if __name__ == "__main__":
    serve(sys.argv[1])
