"""Two replicas for the tests: one process with two logical CPUs, which runs one function after another.

TensorFlow splits its devices before it is used, and never again; a process of its own for each test costs ten seconds
to start. `run(function, *arguments)` has the other process load the function's file and call
`function(strategy, *arguments)`; what it returns comes back as JSON. A MirroredStrategy run that fails spoils its
process, so a function that raises is the last that a process runs: the next one gets a new process.
"""

import atexit
import gc
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

TESTS = Path(__file__).parent


class Replicas:
    """The process, started where it is first asked."""

    def __init__(self):
        self.process, self.errors = None, None

    def start(self):
        paths = [str(TESTS.parent), *sys.path]
        kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        environment = {**kept, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
        )

    def stop(self):
        """Ends the process; returns the end of what it said."""
        if self.process is None:
            return ""
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.seek(0)
        said = self.errors.read()[-3000:]
        self.errors.close()
        self.process = None
        return said

    def ask(self, question: dict, timeout: float) -> dict:
        """Its answer, within so many seconds."""
        if self.process is None:
            self.start()
        alarm = threading.Timer(timeout, self.process.kill)
        alarm.start()
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        return json.loads(line) if line else {"failed": f"It ended, or took more than {timeout} s:\n{self.stop()}"}


_REPLICAS = Replicas()
atexit.register(_REPLICAS.stop)


def run(function, *arguments, clusters=False, spoils=False, timeout=300):
    """What `function(strategy, *arguments)` returns under two replicas.

    Args:
        function: of a module's top level; the other process loads its file anew.
        arguments: what JSON holds.
        clusters: bool, run the training kernels as XLA clusters, as CPUs do; they cost seconds of compilation a fit.
        spoils: bool, whether a failure is what it is to show: the process ends after it.

    Raises:
        AssertionError: with the traceback, where the function raises.
    """
    question = {"file": inspect.getfile(function), "function": function.__qualname__, "arguments": arguments}
    answer = _REPLICAS.ask({**question, "clusters": clusters}, timeout)
    if spoils or "failed" in answer:
        _REPLICAS.stop()
    assert "failed" not in answer, f"{function.__qualname__} under two replicas:\n{answer['failed']}"
    return answer["result"]


# ---- the other process ----------------------------------------------------------------------------------------


def load(file: str):
    """The module in a file, loaded once."""
    name = f"replicas_of_{Path(file).with_suffix('').as_posix().replace('/', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def answers(questions, strategy):
    """The answer to each question, each on a Keras that has made nothing yet; none after a failure."""
    import keras

    from tfxformer.layers.kernels import clusters

    as_cpus, policy = clusters.use_clusters, keras.config.dtype_policy()
    clusters.FEW_ELEMENTS = 0  # the models of tests have few
    for line in questions:
        question = json.loads(line)
        clusters.use_clusters = as_cpus if question["clusters"] else lambda: False
        keras.config.set_dtype_policy(policy)
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        try:
            function = getattr(load(question["file"]), question["function"])
            result = function(strategy, *question["arguments"])
            # As between the files of tests: what lives on is walked through by no later collection.
            gc.collect()
            gc.freeze()
            yield {"result": result}
        except Exception:
            yield {"failed": traceback.format_exc()}
            return


def main():
    """Reads a question a line, writes an answer a line; whatever else is printed goes to the errors."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from tfxformer import training

    strategy = training.strategy("cpu:2")  # before anything else uses TensorFlow
    for answer in answers(sys.stdin, strategy):
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
