"""SmolLM2-135M-Instruct as files for a phone, measured, and chatting from the file.

Expected: see RESULTS.md beside, which the run writes.
Command: python applications/pocket_chat/run.py [--chat]
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import date
from pathlib import Path

from tfxformer import export, samples, tasks
from tfxformer.files import replacing_folder
from tfxformer.recipes import pipeline, report

HOME = Path(__file__).parent
CACHE_LENGTH, PREFILL_LENGTHS = 1040, (16, 128)
# Mode: the error of the logits that we let pass, None for the exporter's own. The weights come out of 4-bit blocks,
# which other 4-bit blocks hold badly; the losses in the results show what it costs.
MODES = {"dynamic_int8": None, "int4_block32": 0.4}
QUESTIONS = ("What is the capital of France?", "Name three fruits.", "Write one sentence about the sea.")
ANSWER_TOKENS = 60
SCORED_TOKENS = 400


def file_name(mode: str) -> str:
    """The .tflite file of a quantization mode."""
    return f"smollm2-{mode.removeprefix('dynamic_').removesuffix('_block32')}.tflite"


def measure(generator: export.LiteRTGenerator, article: str) -> dict:
    """The file's loss on an article, its speed, and its greedy answers."""
    answers, speeds = {}, []
    for question in QUESTIONS:
        start = time.perf_counter()
        answers[question] = generator.chat([{"role": "user", "content": question}], max_new_tokens=ANSWER_TOKENS)
        tokens = len(generator.tokenizer.ids([answers[question]])[0])
        speeds.append(tokens / (time.perf_counter() - start))
    return {
        "nats_per_token": -float(generator.score([article])[0]),
        "tokens_per_second": statistics.median(speeds),
        "answers": answers,
    }


def run(folder: Path) -> dict:
    """Exports and measures; the files go into `folder`."""
    start = time.perf_counter()
    lm = tasks.CausalLM.from_pretrained(samples.smollm2())
    ids = lm.tokenizer.ids([samples.bbc_topics().test_texts[0]])[0][:SCORED_TOKENS]
    (article,) = lm.tokenizer.decode([ids])
    variants = {"keras": {"nats_per_token": -float(lm.score([article])[0])}}
    for mode, tolerance in MODES.items():
        print(f"Exporting {mode}")
        path = folder / file_name(mode)
        made = export.export_litert(
            lm, path, mode, cache_length=CACHE_LENGTH, prefill_lengths=PREFILL_LENGTHS, tolerance=tolerance
        )
        variants[f"litert-{mode}"] = {
            "file": path.name,
            "bytes": made.bytes,
            "relative_error": made.error,
            **measure(export.LiteRTGenerator(path), article),
        }
    print("Bundling for LiteRT-LM")
    bundle = folder / "smollm2-int8.litertlm"
    export.bundle_litertlm(folder / file_name("dynamic_int8"), lm.tokenizer, bundle)
    return {
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - start,
        "machine": pipeline.machine(),
        "bundle": {"file": bundle.name, "bytes": bundle.stat().st_size},
        "variants": variants,
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    header = ["model", "size MB", "nats a token of an article", "error of logits", "tokens/s, prompt included"]
    rows = [
        [
            report.VARIANT_NAMES[name],
            report.cell(one, "bytes", ".1f", 1e-6),
            report.cell(one, "nats_per_token", ".3f"),
            report.cell(one, "relative_error", ".3g"),
            report.cell(one, "tokens_per_second", ".0f"),
        ]
        for name, one in results["variants"].items()
    ]
    answers = [
        f"**{question}**\n\n> {answer.strip()}"
        for question, answer in results["variants"]["litert-dynamic_int8"]["answers"].items()
    ]
    machine, bundle = results["machine"], results["bundle"]
    return (
        f"{report.markdown(header, rows)}\n\nThe bundle {bundle['file']} has {bundle['bytes'] / 1e6:.1f} MB. A cache "
        f"of {CACHE_LENGTH} tokens; the whole run took {results['seconds']:.0f} s on {machine['cores']} cores of "
        f"{machine['processor']}, on {results['date']}.\n\nWhat the int8 file answers, greedily:\n\n"
        + "\n\n".join(answers)
        + "\n"
    )


def chat(path: Path) -> None:
    """Talks, a line a message, until the input ends."""
    generator, messages = export.LiteRTGenerator(path), []
    print("Say something; Ctrl-D ends.")
    while True:
        try:
            messages.append({"role": "user", "content": input("> ")})
        except EOFError:
            return
        answer = ""
        for piece in generator.stream(messages, temperature=0.7, top_p=0.9):
            print(piece, end="", flush=True)
            answer += piece
        print()
        messages.append({"role": "assistant", "content": answer})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chat", action="store_true", help="talk to the int8 file once it is there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "pocket-chat")
    options = parser.parse_args()
    path = options.output / file_name("dynamic_int8")
    if not (options.chat and path.exists()):
        with replacing_folder(options.output) as folder:
            results = run(folder)
            report.write_json(folder / "results.json", results)
        print(section(results))
        report.update_section(HOME / "RESULTS.md", section(results))
    if options.chat:
        chat(path)


if __name__ == "__main__":
    main()
