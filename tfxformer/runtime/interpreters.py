"""The interpreters of one .tflite file, as many as calls run at the same time.

An interpreter holds one text: two threads in one get each other's answers. Two roads were measured
(benchmarks/threads.py): a lock around one interpreter, and a pool. This is the pool. A call that finds another one
running takes a second interpreter, with one thread of its own. On two idle cores two of them answered 1,099 texts of 32
tokens a second, against 569 by callers that waited for one interpreter of two threads, whose threads wait for each
other at every operator (MiniLM, dynamic int8; float32: 182 against 153). Each costs the memory of its packed weights
and activations, 23 MB there (float32: 83 MB); the file is mapped once for all. A program that never calls from two
threads at the same time, nor with many texts, has one interpreter, with all its threads.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

from tfxformer.runtime.model_file import ModelFile, Place
from tfxformer.runtime.quiet import announce_delegate

FEW = 4  # calls for each interpreter, below which opening one more is not worth it
MOST = 8  # interpreters at work on a file; where more are wanted, processes serve better
_abandoned = []  # runtimes in the middle of a call when the parent forked: kept, since closing them could hang


def thread_count(num_threads: int | None) -> int:
    """How many threads an interpreter takes: the number asked for, or the machine's cores, at most 4.

    Raises:
        ValueError: unless it is a positive integer or None.
    """
    if num_threads is None:
        return min(4, os.cpu_count() or 1)
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
        raise ValueError(f"num_threads={num_threads!r} must be a positive integer, or None for the machine's cores.")
    return num_threads


def of_this_process(made: dict, make):
    """The runtime (a `_Pool`, ...) of this process, made by `make` at first and kept in `made` by process id.

    A forked child goes on with its parent's, whose memory it shares, unless a thread that is not in the child was in
    it at that moment.
    """
    process = os.getpid()
    if process not in made:
        ours = [runtime for runtime in made.values() if runtime.is_idle()]
        if not ours:
            _abandoned.extend(made.values())
        made.setdefault(process, ours[-1] if ours else make())  # where two threads make one, the first is kept
    return made[process]


class Interpreters:
    """Runs the signatures of a file from any number of threads, and in children of the process.

    Args:
        file: checked. It may be replaced on the disk, as a whole, by another file of its name; its own bytes must stay.
        num_threads: of every interpreter; None gives the cores, at most 4, to one that runs alone, and one thread to
            those that run together.
    """

    def __init__(self, file: ModelFile, num_threads: int | None):
        self._place, self._names = file.place, tuple(file.signatures)
        self._num_threads = num_threads
        thread_count(num_threads)
        announce_delegate()
        self._pools = {}
        of_this_process(self._pools, self._pool)

    def run(self, signature: str, inputs: dict, alone: bool = True) -> dict:
        """Runs a signature on checked inputs; returns copies that no later call writes to.

        Args:
            alone: whether a call that finds no other running may take all threads.

        Raises:
            ValueError: if the file was overwritten after it was opened.
        """
        self._place.is_there()
        pool = self._pools.get(os.getpid()) or of_this_process(self._pools, self._pool)
        return pool.run(signature, inputs, alone)

    def run_each(self, calls: list[Callable[[], tuple[str, dict]]]) -> Iterator[dict]:
        """The outputs of calls in their order, many of them side by side, in an interpreter of one thread each.

        On two cores 1.7 times as fast as one batch of 32 texts of 128 tokens, and on short reviews 1.5 times as fast as
        one by one (benchmarks/encoder.py): threads of one interpreter wait for each other at every operator, and what
        a single text needs stays in the cache. A caller who says `num_threads` gets them one by one.

        Args:
            calls: each gives the signature and its checked inputs.
        """
        count = 1 if self._num_threads is not None else thread_count(None)
        if len(calls) < FEW * count or count == 1:
            yield from (self.run(*call()) for call in calls)
            return
        from concurrent.futures import ThreadPoolExecutor  # 7 ms, which who asks for one text need not wait for

        waiting = deque()  # a few, so that outputs that are large do not pile up
        with ThreadPoolExecutor(count) as threads:
            for call in calls:
                waiting.append(threads.submit(lambda call=call: self.run(*call(), alone=False)))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _pool(self) -> _Pool:
        return _Pool(self._place, self._names, self._num_threads)


class _Pool:
    """The interpreters of one process: the first one, for a call that runs alone, and others for several at once."""

    def __init__(self, place: Place, names: tuple[str, ...], num_threads: int | None):
        self._place, self._names = place, names
        self._threads_together = num_threads or 1
        self._most = min(MOST, max(1, (os.cpu_count() or 1) // self._threads_together))
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._running = self._waiting = 0  # calls
        self._first = self._open(thread_count(num_threads))
        self._idle = []  # of the others
        if num_threads is not None:
            self._first, self._idle = None, [self._first]  # all are the same

    def _open(self, num_threads: int) -> dict:
        """Signature runners by name; the delegate of each is made in its first call."""
        from ai_edge_litert.interpreter import Interpreter

        path = self._place.path
        try:
            interpreter = Interpreter(model_path=path, num_threads=num_threads)
            runners = {name: interpreter.get_signature_runner(name) for name in self._names}
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT does not open {path}: {error}") from error
        if Place.of(path) != self._place:
            raise ValueError(f"{path} is no longer the file that was checked: open it again.")
        return runners

    def is_idle(self) -> bool:
        """Whether no call is running and no thread holds the lock."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._running == 0
        finally:
            self._lock.release()

    def run(self, signature: str, inputs: dict, alone: bool) -> dict:
        """See `Interpreters.run`."""
        runners = self._take(alone)
        try:
            runners = self._open(self._threads_together) if runners is None else runners
            return runners[signature](**inputs)
        finally:
            self._give_back(runners)

    def _take(self, alone: bool) -> dict | None:
        """The runners for a call; None where some are to be opened for it."""
        with self._lock:
            while True:
                if alone and self._running == 0 and self._first is not None:
                    self._running = 1
                    return self._first
                if self._running < self._most and (self._idle or self._place.is_there()):
                    self._running += 1
                    return self._idle.pop() if self._idle else None
                self._waiting += 1
                self._change.wait()
                self._waiting -= 1

    def _give_back(self, runners: dict | None) -> None:
        with self._lock:
            self._running -= 1
            if runners is not None and runners is not self._first:
                self._idle.append(runners)
            if self._waiting:
                self._change.notify()
