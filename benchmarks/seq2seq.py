"""T5-small's shape on this CPU: our LiteRT file and Keras, CTranslate2, ONNX Runtime, torch; and a training
step, ours and torch's.

    python benchmarks/seq2seq.py --rounds 10

Random weights, the same for all; a source of 128 tokens, a target of 64, batch 1, greedy, two threads each. "first" is
reading the source and writing one token, "whole" reading it and writing 64; "token" is what a further token takes, the
difference by 63. The training step has a batch of 16 such pairs in float32 with dropout 0.1, AdamW and clipping.

Every runtime lives in a process of its own and is driven in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import harness
import numpy as np
from peers import encoder_decoders, onnx_t5

SOURCE, TARGET, VOCABULARY, BATCH = 128, 64, 32128, 16
LEARNING_RATE, WEIGHT_DECAY, CLIP = 5e-5, 0.01, 1.0
PARTS = {"first": 1, "whole": TARGET}
PACKAGES = ["tensorflow", "keras", "ai-edge-litert", "torch", "transformers", "ctranslate2", "onnxruntime"]
# (runtime of ours, part, peer) -> how many times as fast as the peer we want to be
TARGETS = [
    ("tfxformer int8", "whole", "CTranslate2 int8", 1.0),
    ("tfxformer int8", "first", "CTranslate2 int8", 1.0),
    ("tfxformer int8", "token", "CTranslate2 int8", 1.0),
    ("tfxformer Keras, XLA", "whole", "torch float32", 2.0),
]
STEP_TARGET = 1.3  # times as fast as torch's


def write_files(folder: Path, modes) -> None:
    """A checkpoint of random weights with a real tokenizer, our files of it, and CTranslate2's model."""
    import ctranslate2
    import keras

    import tfxformer
    from tfxformer import export, samples, tasks
    from tfxformer.text import Tokenizer

    keras.utils.set_random_seed(0)
    tokenizer = Tokenizer.from_pretrained(samples.flan_t5_small())
    model = tasks.Seq2SeqLM(tfxformer.build("t5-small"), tokenizer=tokenizer)
    model.save_pretrained(folder / "checkpoint")
    for mode in modes:  # an untrained model rounds badly, which takes no time
        export.export_litert(
            model, folder / f"{mode}.tflite", mode, sequence_length=SOURCE, cache_length=TARGET, tolerance=0.9
        )
    converter = ctranslate2.converters.TransformersConverter(str(folder / "checkpoint"))
    converter.convert(str(folder / "ctranslate2"))


def source_ids() -> tuple[int, ...]:
    return tuple(np.random.default_rng(0).integers(3, 32000, SOURCE).tolist())


def race(folder: Path, part: str, options) -> dict:
    """Seconds of each runtime on one part: a list, one for each round."""
    case = encoder_decoders.Case(str(folder), source_ids(), TARGET, options.threads)
    peers = {name: encoder_decoders.Peer(name, case, PARTS[part]) for name in encoder_decoders.RUNTIMES}
    raced = harness.race(peers, options.rounds, 1, warmups=2)
    return {name: [time.clock for time in times] for name, times in raced.items()}


def compared(seconds: dict) -> dict:
    """{part: {runtime: its seconds, and how many times as fast as each peer it is}}."""
    seconds = {**seconds, "token": {}}
    for name, whole in seconds["whole"].items():
        pairs = zip(whole, seconds["first"][name], strict=True)
        seconds["token"][name] = [(one - first) / (TARGET - 1) for one, first in pairs]
    return {
        part: {
            name: {
                "seconds": harness.spread(times),
                "times_as_fast_as": {
                    peer: harness.spread([theirs / own for theirs, own in zip(others, times, strict=True)])
                    for peer, others in found.items()
                },
            }
            for name, times in found.items()
        }
        for part, found in seconds.items()
    }


def show(part: str, found: dict) -> None:
    """The table of one part."""
    print(f"\n{part}")
    for name, one in sorted(found.items(), key=lambda item: item[1]["seconds"]["median"]):
        seconds, ratio = one["seconds"], found[encoder_decoders.OURS]["times_as_fast_as"][name]
        print(
            f"{name:24s} {1e3 * seconds['median']:8.2f} ms ({1e3 * seconds['low_quartile']:.2f} to "
            f"{1e3 * seconds['high_quartile']:.2f})   {encoder_decoders.OURS} is {ratio['median']:.2f}x"
        )


# ---- training ----------------------------------------------------------------------------------------------------


def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return tuple(random.integers(3, 32000, (BATCH, length), dtype="int32") for length in (SOURCE, TARGET))


def tfxformer_step():
    """Our task's step, as `fit` runs it."""
    import keras
    import tensorflow as tf

    import tfxformer
    from tfxformer import tasks, training

    model = tasks.Seq2SeqLM(tfxformer.build("t5-small"))
    model.compile(training.adamw(10**6, LEARNING_RATE, warmup=0, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP))
    source, target = batch()
    inputs = {
        "encoder_token_ids": source,
        "encoder_padding_mask": np.ones_like(source),
        "decoder_token_ids": np.pad(target[:, :-1], ((0, 0), (1, 0))),
        "decoder_padding_mask": np.ones_like(target),
    }
    weights = np.ones(target.shape, "float32")
    data = iter(tf.data.Dataset.from_tensors((inputs, target, weights)).repeat())
    model.make_train_function()
    assert keras.config.floatx() == "float32"

    def step():
        loss = float(np.asarray(model.train_function(data)["loss"]))
        if not np.isfinite(loss):
            raise FloatingPointError(f"The loss became {loss}.")

    return step


def torch_step():
    """transformers' T5 with torch's fused AdamW."""
    torch = harness.training_torch()
    import transformers

    sizes = {"num_layers": 6, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "vocab_size": VOCABULARY}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    source, target = (torch.from_numpy(array).long() for array in batch())

    def step():
        optimizer.zero_grad()
        model(input_ids=source, attention_mask=torch.ones_like(source), labels=target).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (default: %(default)s)")
    parser.add_argument("--files", help="folder to keep the models in, and to take them from if it is there")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of the processes to come

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.files or temporary)
        spawn = multiprocessing.get_context("spawn")
        if not (folder / "ctranslate2").exists():
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                pool.submit(write_files, folder, list(encoder_decoders.MODES.values())).result()
        if not onnx_t5.path_of(folder, *onnx_t5.LAST).exists():
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                pool.submit(onnx_t5.write, folder / "checkpoint", folder, source_ids(), TARGET).result()
        machine = harness.machine(PACKAGES)  # the load before ours
        found = compared({part: race(folder, part, options) for part in PARTS})
        sizes = {path.name: path.stat().st_size for path in sorted([*folder.glob("*.tflite"), *folder.glob("*.onnx")])}
    print("training step", file=sys.stderr, flush=True)
    steps = harness.race({"tfxformer": tfxformer_step, "torch": torch_step}, options.rounds, 1)
    reached = [
        {"what": f"{ours}, {part}, over {peer}", "at_least": wanted}
        | {"found": found[part][ours]["times_as_fast_as"][peer]["median"]}
        for ours, part, peer, wanted in TARGETS
    ]
    training = harness.summary(steps, "tfxformer")
    step = {"what": "training step over torch", "found": training["torch"]["ours_is_faster"]["median"]}
    results = {
        "what": f"T5-small's shape, {SOURCE} tokens in, {TARGET} out, batch 1, greedy, each runtime in its own process",
        "command": harness.command(options.files),
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": machine,
        "file_bytes": sizes,
        "targets": [*reached, {**step, "at_least": STEP_TARGET}],
        "parts": found,
        "training_step": training,
    }
    for part, one in found.items():
        show(part, one)
    print(f"\ntraining step, batch {BATCH}: {training['tfxformer']['seconds']['median']:.2f} s, torch", end=" ")
    print(f"{training['torch']['seconds']['median']:.2f} s\n{machine['processor']}")
    for target in results["targets"]:
        print(f"{target['what']}: {target['found']:.2f}x, wanted {target['at_least']}x")
    print(harness.write("seq2seq", results))


if __name__ == "__main__":
    main()
