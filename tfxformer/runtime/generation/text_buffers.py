"""The compiled signatures of a file that writes, and the buffers of its texts."""

from __future__ import annotations

import sys
import threading

import numpy as np

from tfxformer.runtime.generation import decoding
from tfxformer.runtime.model_file import Place
from tfxformer.runtime.quiet import quiet_runtime

SOURCE_INPUTS = ("encoder_token_ids", "encoder_padding_mask")
KEPT = (decoding.CACHE, decoding.CROSS, decoding.SOURCE_MASK)  # how tensors begin that one call leaves to the next


def output_of(info, name: str):
    """The output of a signature of that name."""
    return next(tensor for tensor in info.outputs if tensor.name == name)


class Runtime:
    """The compiled signatures of a file, and the buffers of its texts.

    Texts take turns under a lock: a call waits for the weights to come from memory, and all threads share that.
    Measured against a model of one thread for each caller (benchmarks/threads.py, six layers, int8): those wrote no
    more tokens a second, and held 115 MB where one model with the buffers of 8 texts held 40 MB.
    """

    def __init__(self, place: Place, content: bytes | None, signatures: dict, limits: dict, num_threads: int):
        """`limits`: how many ids there are, by the name of the input that has some."""
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options

        self.lock = threading.Lock()
        self.place, self._content, self._signatures = place if content is None else None, content, signatures
        self.limits, self.vocabulary_size = limits, output_of(signatures[decoding.DECODE], "logits").shape[-1]
        self.kept = [tensor for tensor in signatures[decoding.DECODE].inputs if tensor.name.startswith(KEPT)]
        self.free = []  # buffers whose texts are finished
        # Signatures share the weights as XNNPACK packs them: else each holds them in memory once more.
        shared = ":memory" if sys.platform == "linux" else ""
        options = Options(cpu_options=CpuOptions(num_threads=num_threads, xnnpack_weight_cache_path=shared))
        with quiet_runtime():
            try:
                if content is None:
                    self.model = CompiledModel.from_file(place.path, options=options)
                else:
                    self.model = CompiledModel.from_buffer(content, options=options)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"LiteRT does not open {place.path}: {error}") from error
            if self.place is not None and Place.of(place.path) != place:
                raise ValueError(f"{place.path} is no longer the file that was checked: open it again.")
            self.free.append(self._buffers())

    def __del__(self):
        if not sys.is_finalizing():
            with quiet_runtime():  # an environment that goes says so
                self.model = self.free = None

    def _buffers(self) -> dict:
        """{signature: (inputs, outputs)} for one text, each buffer of its cache both read and written.

        What an encoder gives, each decode signature reads from where it was written.
        """
        decode = self._signatures[decoding.DECODE]
        cache = {}
        for tensor in self.kept:
            cache[tensor.name] = self.model.create_input_buffer_by_name(decode.name, tensor.name)
            cache[tensor.name].write(np.zeros(tensor.shape, tensor.dtype))  # not NaN by chance: 0 * NaN is NaN
        return {name: self._bind(info, cache) for name, info in self._signatures.items()}

    def _bind(self, info, cache: dict) -> tuple[dict, dict]:
        make_input, make_output = self.model.create_input_buffer_by_name, self.model.create_output_buffer_by_name
        inputs = {t.name: cache.get(t.name) or make_input(info.name, t.name) for t in info.inputs}
        outputs = {t.name: cache.get(t.name) or make_output(info.name, t.name) for t in info.outputs}
        return inputs, outputs

    def is_idle(self) -> bool:
        """Whether no call is running."""
        if not self.lock.acquire(blocking=False):
            return False
        self.lock.release()
        return True

    def text(self) -> Text:
        """What runs a new text."""
        with self.lock:
            return Text(self, self.free.pop() if self.free else self._buffers())


class Text:
    """One text in the buffers of a runtime."""

    def __init__(self, runtime: Runtime, buffers: dict):
        self._runtime, self._buffers = runtime, buffers

    def release(self) -> None:
        """Lets another text have the buffers."""
        self._runtime.free.append(self._buffers)
        self._buffers = None

    def run(self, signature: str, tokens, positions):
        """One call of the decoder; see `decoding.DecodingSession`."""
        return self._run(signature, {"tokens": tokens, "input_pos": positions})

    def encode(self, ids, length: int) -> None:
        """Reads a source of at most `length` tokens, by the signature for so many."""
        arrays = np.zeros((2, 1, length), np.int32)
        arrays[0, 0, : len(ids)], arrays[1, 0, : len(ids)] = ids, 1
        self._run(f"{decoding.ENCODE}{length}", dict(zip(SOURCE_INPUTS, arrays, strict=True)))

    def copy(self, other: Text, source: bool = False) -> None:
        """Takes over the cache of another text of the same runtime; with `source`, what it read of one, too."""
        (ours, _), (theirs, _) = self._buffers[decoding.DECODE], other._buffers[decoding.DECODE]
        with self._runtime.lock:
            for tensor in self._runtime.kept:
                if source or tensor.name.startswith(decoding.CACHE):
                    found = theirs[tensor.name].read(int(np.prod(tensor.shape)), np.float32)
                    ours[tensor.name].write(found)

    def _run(self, signature: str, arrays: dict):
        """Runs a signature on arrays of int32; float32 [V] where it gives logits."""
        runtime = self._runtime
        name, ids = next(iter(arrays.items()))
        if ids.max() >= runtime.limits[name]:  # LiteRT stops, or reads another row
            raise ValueError(f"{ids.max()} is no token id: they are below {runtime.limits[name]}.")
        inputs, outputs = self._buffers[signature]
        with runtime.lock:
            if runtime.place is not None:
                runtime.place.is_there()
            for name, array in arrays.items():
                inputs[name].write(array)
            runtime.model.run_by_name(signature, inputs, outputs)
            return outputs["logits"].read(runtime.vocabulary_size, np.float32) if "logits" in outputs else None
