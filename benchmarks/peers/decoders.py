"""A language model under three runtimes, from one GGUF file: reading a prompt, writing on, predicting.

A runtime is a function (case, threads) -> Runner; all decode greedily at batch 1, each with the documented settings
of one user on this machine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        folder: str, where `decoder.write_files` has put the files of ours.
        gguf: str, the GGUF file.
        prompt: tuple of int, token ids.
        context: int, slots of the cache.
        new_tokens: int, tokens of one measurement of decoding.
        threads: int.
    """

    folder: str
    gguf: str
    prompt: tuple[int, ...]
    context: int
    new_tokens: int
    threads: int


class Runner:
    """A runtime with the prompt read; `read` reads it again, `decode` goes on from its end, always the same way."""

    def read(self):
        """Reads the whole prompt into the cache; returns the token that follows."""
        raise NotImplementedError("A runtime reads prompts.")

    def decode(self) -> list[int]:
        """Greedy tokens after the prompt, `new_tokens` of them, each fed back."""
        raise NotImplementedError("A runtime decodes.")

    def logits(self, ids) -> np.ndarray:
        """What follows each of `ids`, read from the beginning of the cache: float [tokens, V]."""
        raise NotImplementedError("A runtime says how likely each token is.")


class LiteRT(Runner):
    """Our file through `export.LiteRTGenerator`, its cache updated in place."""

    def __init__(self, case: Case, quantization: str):
        from tfxformer.export import LiteRTGenerator

        path = Path(case.folder) / f"{quantization}-{case.context}.tflite"
        self.case, self.generator = case, LiteRTGenerator(path, num_threads=case.threads)

    def read(self):
        self.steps = self.generator.steps()
        self.steps.prefill(self.case.prompt[:-1])
        self.token = int(self.steps.decode(self.case.prompt[-1]).argmax())
        return self.token

    def decode(self):
        self.steps.position = len(self.case.prompt)  # what the cache holds behind it is written again
        tokens = [self.token]
        for _ in range(self.case.new_tokens - 1):
            tokens.append(int(self.steps.decode(tokens[-1]).argmax()))
        return tokens

    def logits(self, ids):
        steps = self.generator.steps()
        return np.stack([np.array(steps.decode(token)).reshape(-1) for token in ids])


class Torch(Runner):
    """transformers' own class on torch in float32, with its own cache."""

    def __init__(self, case: Case):
        import torch
        import transformers

        torch.set_num_threads(case.threads)
        self.case, self.torch = case, torch
        self.cache_class = transformers.DynamicCache
        # Of the same weights, saved by us: transformers' own GGUF reader wants one more package.
        self.model = transformers.AutoModelForCausalLM.from_pretrained(Path(case.folder) / "checkpoint").eval()

    def read(self):
        with self.torch.inference_mode():
            self.cache = self.cache_class()
            ids = self.torch.tensor([self.case.prompt])
            self.token = int(self._step(ids))
        return self.token

    def _step(self, ids):
        outputs = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return outputs.logits[0, -1].argmax()

    def decode(self):
        with self.torch.inference_mode():
            behind = self.cache.get_seq_length() - len(self.case.prompt)
            if behind:
                self.cache.crop(-behind)
            tokens = [self.token]
            for _ in range(self.case.new_tokens - 1):
                tokens.append(int(self._step(self.torch.tensor([[tokens[-1]]]))))
        return tokens

    def logits(self, ids):
        with self.torch.inference_mode():
            return self.model(input_ids=self.torch.tensor([list(ids)])).logits[0].numpy()


class LlamaCpp(Runner):
    """llama.cpp through llama-cpp-python, on the GGUF file as it is."""

    def __init__(self, case: Case):
        import llama_cpp

        self.case = case
        self.llama = llama_cpp.Llama(
            case.gguf, n_ctx=case.context, n_threads=case.threads, n_threads_batch=case.threads, verbose=False
        )

    def _last(self):
        import llama_cpp

        logits = llama_cpp.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(logits, (self.llama.n_vocab(),))

    def _next(self):
        return int(self._last().argmax())

    def logits(self, ids):
        self.llama.n_tokens, found = 0, []
        for token in ids:
            self.llama.eval([int(token)])
            found.append(self._last().copy())
        return np.stack(found)

    def read(self):
        self.llama.n_tokens = 0  # `eval` drops what the cache holds from here on
        self.llama.eval(list(self.case.prompt))
        self.token = self._next()
        return self.token

    def decode(self):
        self.llama.n_tokens = len(self.case.prompt)
        tokens = [self.token]
        for _ in range(self.case.new_tokens - 1):
            self.llama.eval(tokens[-1:])
            tokens.append(self._next())
        return tokens


MODES = {"tfxformer int8": "dynamic_int8", "tfxformer int4": "int4_block32"}  # of our files
RUNTIMES = {
    **{name: functools.partial(LiteRT, quantization=mode) for name, mode in MODES.items()},
    "llama.cpp Q4_1": LlamaCpp,  # SmolLM2's file
    "llama.cpp Q4_K_M": LlamaCpp,  # Gemma 3's
    "torch float32": Torch,
}
OURS = "tfxformer int8"


class Peer:
    """A runtime as `harness.race` starts it: `part` is "read" or "decode"."""

    def __init__(self, name: str, case: Case, part: str):
        self.__name__, self.name, self.case, self.part = name, name, case, part

    def __call__(self):
        runner = RUNTIMES[self.name](self.case)
        first = runner.read()
        tokens = runner.decode()
        if tokens[0] != first:
            raise RuntimeError(f"{self.name} decodes {tokens[0]} after the prompt, and read {first}.")
        return runner.read if self.part == "read" else runner.decode


def nats(name: str, case: Case, rows) -> list[float]:
    """How many nats a runtime needs for each token of each row but its first; a row has no more than the cache."""
    runner = RUNTIMES[name](case)
    found = []
    for row in rows:
        logits = runner.logits(row[:-1]).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        sums = np.log(np.exp(logits).sum(axis=-1))
        found += (sums - np.take_along_axis(logits, np.asarray(row[1:])[:, None], axis=-1)[:, 0]).tolist()
    return found
