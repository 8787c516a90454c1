"""SmolLM2-135M-Instruct taught another manner of talking by LoRA, merged, and written as a file that chats.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/lora_chat/run.py [--quick] [--chat]
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import keras

from tfxformer import compression, export, samples, tasks
from tfxformer.files import replacing_folder
from tfxformer.recipes import pipeline, report

HOME = Path(__file__).parent
FILE, ADAPTER = "smollm2-lora.tflite", "adapter"
CACHE_LENGTH, PREFILL_LENGTHS, ANSWER_TOKENS = 272, (64,), 40
HELD_OUT = 0.15  # of the things that people say
QUESTIONS = ("What is your favorite movie?", "Do you know gossip?", "What is history?", "My keyboard is not working.")


@dataclass(frozen=True)
class Settings:
    """The dials of a run.

    Attributes:
        pairs: int, of training; None for all.
        held_out_pairs: int, on which the loss is measured; None for all.
        epochs, batch_size, sequence_length, rank, seed: int; a batch is of blocks of whole conversations.
        learning_rate: float, the highest.
    """

    pairs: int | None = 320
    held_out_pairs: int | None = 64
    epochs: int = 1
    batch_size: int = 4
    sequence_length: int = 256
    rank: int = 8
    learning_rate: float = 5e-4
    seed: int = 0


FULL, QUICK = Settings(), Settings(pairs=48, held_out_pairs=16, epochs=1)


def conversation(said: str, answer: str | None = None) -> list[dict]:
    """The messages of one pair, or of what was said alone."""
    messages = [{"role": "user", "content": said}]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


def split(pairs: list[tuple[str, str]], settings: Settings) -> tuple[list, list]:
    """Conversations to train on and held-out ones; nothing that was said is in both."""
    said = sorted({first for first, _ in pairs})
    order = random.Random(0)  # the split is not a dial
    held_out = set(order.sample(said, round(HELD_OUT * len(said))))
    order.shuffle(pairs)
    parts = ([one for one in pairs if (one[0] in held_out) == kept] for kept in (False, True))
    counts = (settings.pairs, settings.held_out_pairs)
    train, test = ([conversation(*one) for one in part[:count]] for part, count in zip(parts, counts, strict=True))
    return train, test


def loss(lm, conversations: list, settings: Settings) -> float:
    """Nats a token of the answers."""
    return lm.evaluate(conversations, batch_size=settings.batch_size, return_dict=True, verbose=0)["loss"]


def answers(chatting) -> dict:
    """What a model or file answers, greedily, by question."""
    return {question: chatting.chat(conversation(question), ANSWER_TOKENS) for question in QUESTIONS}


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, merges, exports and asks; the files go into `folder`."""
    start = time.perf_counter()
    keras.utils.set_random_seed(settings.seed)
    lm = tasks.CausalLM.from_pretrained(
        samples.smollm2(), dtype="mixed_bfloat16", sequence_length=settings.sequence_length
    )
    train, held_out = split(samples.chatterbot(), settings)
    before = {"nats_per_token": loss(lm, held_out, settings), "answers": answers(lm)}

    adapters = compression.Adapters(lm)
    adapters.add("chatterbot", compression.LoRA(rank=settings.rank))
    table = compression.trainable_table(lm)
    print(f"Training {table.total.trainable:,} of {table.total.parameters:,} parameters")
    lm.compile(learning_rate=settings.learning_rate)
    fitting = time.perf_counter()
    lm.fit(train, batch_size=settings.batch_size, epochs=settings.epochs, verbose=verbose)
    fitting = time.perf_counter() - fitting
    adapters.save(folder / ADAPTER, base="HuggingFaceTB/SmolLM2-135M-Instruct")
    beside = loss(lm, held_out, settings)
    adapters.merge()
    after = {"nats_per_token": beside, "merged_nats_per_token": loss(lm, held_out, settings)}

    print("Exporting")
    made = export.export_litert(lm, folder / FILE, cache_length=CACHE_LENGTH, prefill_lengths=PREFILL_LENGTHS)
    return {
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - start,
        "fit_seconds": fitting,
        "machine": pipeline.machine(),
        "settings": asdict(settings),
        "conversations": {"train": len(train), "held_out": len(held_out)},
        "trainable": table.to_dict()["total"],
        "adapter_bytes": sum(file.stat().st_size for file in (folder / ADAPTER).iterdir()),
        "before": before,
        "after": after,
        "file": {
            "file": FILE,
            "bytes": made.bytes,
            "relative_error": made.error,
            "answers": answers(export.LiteRTGenerator(folder / FILE)),
        },
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    before, after, file = results["before"], results["after"], results["file"]
    trained, dials, machine = results["trainable"], results["settings"], results["machine"]
    header = ["held-out answers", "nats a token"]
    rows = [
        ["SmolLM2-135M-Instruct", f"{before['nats_per_token']:.3f}"],
        ["with the adapter beside it", f"{after['nats_per_token']:.3f}"],
        ["the adapter merged", f"{after['merged_nats_per_token']:.3f}"],
    ]
    said = [
        [question.replace("|", "/"), *(" ".join(one["answers"][question].split()) for one in (before, file))]
        for question in QUESTIONS
    ]
    talk = "\n".join(f"- **{question}**\n  - before: {old}\n  - the file: {new}" for question, old, new in said)
    return (
        f"{report.markdown(header, rows)}\n\n"
        f"{results['conversations']['train']} conversations to train on, {results['conversations']['held_out']} held "
        f"out; epochs: {dials['epochs']}, in blocks of {dials['sequence_length']} tokens, {dials['batch_size']} at a "
        f"time, in {results['fit_seconds']:.0f} s; rank {dials['rank']} on all Dense layers, "
        f"{trained['trainable']:,} of {trained['parameters']:,} parameters trained ({trained['share']:.2%}). The "
        f"adapter alone has {results['adapter_bytes'] / 1e6:.2f} MB, the int8 file {file['bytes'] / 1e6:.1f} MB "
        f"(error of its logits {file['relative_error']:.3g}). The whole run took {results['seconds']:.0f} s on "
        f"{machine['cores']} cores of {machine['processor']}, on {results['date']}.\n\n"
        f"What SmolLM2 answers, and what the file does, both greedily, at most {ANSWER_TOKENS} tokens:\n\n{talk}\n"
    )


def chat(path: Path) -> None:
    """Answers, a line a message, each for itself as it was trained, until the input ends."""
    generator = export.LiteRTGenerator(path)
    print("Say something; Ctrl-D ends.")
    while True:
        try:
            print(generator.chat(conversation(input("> ")), ANSWER_TOKENS))
        except EOFError:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few conversations: to see it run, not to measure it")
    parser.add_argument("--chat", action="store_true", help="talk to the file once it is there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "lora-chat")
    options = parser.parse_args()
    path = options.output / FILE
    if not (options.chat and path.exists()):
        with replacing_folder(options.output) as folder:
            results = run(folder, QUICK if options.quick else FULL, verbose=2)
            report.write_json(folder / "results.json", results)
        print(section(results))
        if not options.quick:
            report.update_section(HOME / "RESULTS.md", section(results))
    if options.chat:
        chat(path)


if __name__ == "__main__":
    main()
