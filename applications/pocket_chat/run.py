"""SmolLM2-135M-Instruct, or Gemma 3 270M, as files for a phone, measured, and writing from the file.

Expected: see RESULTS.md beside (RESULTS-gemma3.md for Gemma), which the run writes.
Command: python applications/pocket_chat/run.py [--model gemma3 --accept-terms] [--chat]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tfxformer import export, samples, tasks
from tfxformer.files import replacing_folder
from tfxformer.recipes import pipeline, report

HOME = Path(__file__).parent
CACHE_LENGTH, PREFILL_LENGTHS = 1040, (16, 128)
ANSWER_TOKENS = 60
SCORED_TOKENS = 400


@dataclass(frozen=True)
class Model:
    """What goes onto the phone.

    Attributes:
        sample: its function of `tfxformer.samples`.
        prompts: what the file is asked, or goes on with.
        chats: whether it was trained to answer; a base model goes on with a text.
        results: the page of its figures, beside this file.
        folder: where its files are written by default, under saved_models.
        terms: str or None, the sample whose terms are to be accepted.
        modes: {mode: the error of the logits that we let pass, None for the exporter's own}. The weights come out of
            4-bit blocks, which other 4-bit blocks hold badly, and Gemma's logits were off by 0.064 in 8 bits; the
            losses in the results show what it costs.
    """

    sample: str
    prompts: tuple[str, ...]
    chats: bool
    results: str
    folder: str
    modes: dict[str, float | None]
    terms: str | None = None

    def gguf(self, accept_terms: bool) -> Path:
        """The GGUF file.

        Raises:
            PermissionError: its terms are not accepted; it tells them.
        """
        fetch = getattr(samples, self.sample)
        return fetch() if self.terms is None else fetch(accept_terms=accept_terms)


MODELS = {
    "smollm2": Model(
        "smollm2",
        ("What is the capital of France?", "Name three fruits.", "Write one sentence about the sea."),
        chats=True,
        results="RESULTS.md",
        folder="pocket-chat",
        modes={"dynamic_int8": None, "int4_block32": 0.4},
    ),
    "gemma3": Model(
        "gemma3_270m",
        ("The capital of France is", "Three fruits that everybody knows are", "The sea is"),
        chats=False,
        results="RESULTS-gemma3.md",
        folder="pocket-gemma3",
        modes={"dynamic_int8": 0.1, "int4_block32": 0.4},
        terms="gemma3-270m-1",
    ),
}


def file_name(name: str, mode: str) -> str:
    """The .tflite file of a model in a quantization mode."""
    return f"{name}-{mode.removeprefix('dynamic_').removesuffix('_block32')}.tflite"


def writer(generator: export.LiteRTGenerator, chats: bool) -> Callable[[str], str]:
    """What makes the file's greedy text of a prompt."""
    if not chats:
        return lambda prompt: generator.generate(prompt, max_new_tokens=ANSWER_TOKENS)
    return lambda prompt: generator.chat([{"role": "user", "content": prompt}], max_new_tokens=ANSWER_TOKENS)


def measure(generator: export.LiteRTGenerator, model: Model, article: str) -> dict:
    """The file's loss on an article, its speed, and its greedy texts."""
    write, texts, speeds = writer(generator, model.chats), {}, []
    for prompt in model.prompts:
        start = time.perf_counter()
        texts[prompt] = write(prompt)
        tokens = len(generator.tokenizer.ids([texts[prompt]], special_tokens=False)[0])
        speeds.append(tokens / (time.perf_counter() - start))
    return {
        "nats_per_token": -float(generator.score([article])[0]),
        "tokens_per_second": statistics.median(speeds),
        "texts": texts,
    }


def run(name: str, folder: Path, accept_terms: bool) -> dict:
    """Exports and measures; the files go into `folder`."""
    start, model = time.perf_counter(), MODELS[name]
    lm = tasks.CausalLM.from_pretrained(model.gguf(accept_terms))
    ids = lm.tokenizer.ids([samples.bbc_topics().test_texts[0]])[0][:SCORED_TOKENS]
    (article,) = lm.tokenizer.decode([ids])
    variants = {"keras": {"nats_per_token": -float(lm.score([article])[0])}}
    for mode, tolerance in model.modes.items():
        print(f"Exporting {mode}")
        path = folder / file_name(name, mode)
        made = export.export_litert(
            lm, path, mode, cache_length=CACHE_LENGTH, prefill_lengths=PREFILL_LENGTHS, tolerance=tolerance
        )
        variants[f"litert-{mode}"] = {
            "file": path.name,
            "bytes": made.bytes,
            "relative_error": made.error,
            "greedy_agreement": made.greedy_agreement,
            **measure(export.LiteRTGenerator(path), model, article),
        }
    print("Bundling for LiteRT-LM")
    bundle = folder / f"{name}-int8.litertlm"
    export.bundle_litertlm(folder / file_name(name, "dynamic_int8"), lm.tokenizer, bundle)
    return {
        "date": date.today().isoformat(),
        "model": name,
        "terms": None if model.terms is None else samples.SAMPLES[model.terms].terms,
        "seconds": time.perf_counter() - start,
        "machine": pipeline.machine(),
        "bundle": {"file": bundle.name, "bytes": bundle.stat().st_size},
        "variants": variants,
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    header = ["model", "size MB", "nats a token of an article", "error of logits", "next tokens as Keras'", "tokens/s"]
    rows = [
        [
            report.VARIANT_NAMES[name],
            report.cell(one, "bytes", ".1f", 1e-6),
            report.cell(one, "nats_per_token", ".3f"),
            report.cell(one, "relative_error", ".3g"),
            report.cell(one, "greedy_agreement", ".1%"),
            report.cell(one, "tokens_per_second", ".0f"),
        ]
        for name, one in results["variants"].items()
    ]
    chats, texts = MODELS[results["model"]].chats, results["variants"]["litert-dynamic_int8"]["texts"]
    written = [
        f"**{prompt}**\n\n> {text.strip()}" if chats else f"> **{prompt}**{text.rstrip()}"
        for prompt, text in texts.items()
    ]
    machine, bundle = results["machine"], results["bundle"]
    title = "What the int8 file answers" if chats else "How the int8 file goes on with the words in bold"
    terms = f"{results['terms']}.\n\n" if results["terms"] else ""
    return (
        f"{report.markdown(header, rows)}\n\nThe bundle {bundle['file']} has {bundle['bytes'] / 1e6:.1f} MB. A cache "
        f"of {CACHE_LENGTH} tokens; tokens/s with the reading of the prompt in it. The whole run took "
        f"{results['seconds']:.0f} s on {machine['cores']} cores of {machine['processor']}, on {results['date']}.\n\n"
        f"{terms}{title}, greedily:\n\n" + "\n\n".join(written) + "\n"
    )


def talk(path: Path, chats: bool) -> None:
    """Answers messages, or goes on with beginnings, a line each, until the input ends."""
    generator, messages = export.LiteRTGenerator(path), []
    print("Say something; Ctrl-D ends." if chats else "Begin a text, which goes on from there; Ctrl-D ends.")
    while True:
        try:
            line = input("> ")
        except EOFError:
            return
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        prompt, most = (messages, None) if chats else (line, ANSWER_TOKENS)
        answer = "" if chats else line
        print(answer, end="")
        for piece in generator.stream(prompt, most, temperature=0.7, top_p=0.9):
            print(piece, end="", flush=True)
            answer += piece
        print()
        messages.append({"role": "assistant", "content": answer})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="smollm2", help="(default: %(default)s)")
    parser.add_argument("--accept-terms", action="store_true", help="you accept those of the model: Gemma's")
    parser.add_argument("--chat", action="store_true", help="talk to the int8 file once it is there")
    parser.add_argument("--output", type=Path, help="(default: a folder of the model in saved_models)")
    options = parser.parse_args()
    model = MODELS[options.model]
    output = options.output or Path("saved_models") / model.folder
    try:
        model.gguf(options.accept_terms)
    except PermissionError as error:
        parser.error(f"{error} Here that is --accept-terms.")
    path = output / file_name(options.model, "dynamic_int8")
    if not (options.chat and path.exists()):
        with replacing_folder(output) as folder:
            results = run(options.model, folder, options.accept_terms)
            report.write_json(folder / "results.json", results)
        print(section(results))
        report.update_section(HOME / model.results, section(results))
    if options.chat:
        talk(path, model.chats)


if __name__ == "__main__":
    main()
