"""Completes a line of a Python file, in the terminal, by the file that run.py writes.

Expected: the line, and what the model would write behind it, up to the line's end.
Command: python applications/code_completion/complete.py FILE LINE [--lines N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus import LONGEST

from tfxformer.runtime import LiteRTGenerator

FILE = Path("saved_models") / "code-completion" / "code-int8.tflite"


def completed(generator: LiteRTGenerator, text: str, lines: int = 1) -> str:
    """What comes behind a text: the rest of its last line, and further lines."""
    most = LONGEST * lines
    room = generator.cache_length - most
    if room < 1:
        longest = (generator.cache_length - 1) // LONGEST
        raise ValueError(f"{lines} lines do not fit into the {generator.cache_length} tokens: at most {longest}.")
    ids = generator.tokenizer.ids([text], special_tokens=False)[0][-room:]
    written = generator.generate(ids, most)
    return "\n".join(written.split("\n")[:lines])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="Python source")
    parser.add_argument("line", type=int, help="number of the line that is to be completed, from 1")
    parser.add_argument("--lines", type=int, default=1, help="how many lines to write")
    parser.add_argument("--model", type=Path, default=FILE)
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"there is no {options.model}: python applications/code_completion/run.py writes it")
    source = options.file.read_text(encoding="utf-8").split("\n")
    if not 1 <= options.line <= len(source):
        parser.error(f"{options.file} has {len(source)} lines, not {options.line}")
    before = "\n".join(source[: options.line])
    print(source[options.line - 1] + completed(LiteRTGenerator(options.model), before, options.lines))


if __name__ == "__main__":
    main()
