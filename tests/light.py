"""What the base install does with LiteRT files; run as a program, which prints what it found as JSON.

    python light.py classifier.tflite decoder.tflite seq2seq.tflite [module that must not be imported ...]

`runtime/test_light.py` runs it beside all that the tests need, refusing what the base install does not bring;
`installs.py` runs it in an environment of the base install alone.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

LABELLED = [("good film", "negative"), ("what a bad film", "positive")]


class Refusing:
    """A finder before all others: to Python, the modules of its names are not installed."""

    def __init__(self, names):
        self.names = frozenset(names)

    def find_spec(self, name, path=None, target=None):
        """Nothing; ModuleNotFoundError for the names."""
        first = name.partition(".")[0]
        if first in self.names:
            raise ModuleNotFoundError(f"No module named {first!r}", name=first)


def command(*arguments: str) -> str:
    """What `tfxformer arguments...` prints."""
    from tfxformer.cli.main import app

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        app(arguments, standalone_mode=False)
    return output.getvalue()


def evaluated(classifier: str) -> dict:
    """What `tfxformer evaluate` says of two labelled texts, which are written first."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "labelled.csv"
        table.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in LABELLED), encoding="utf-8")
        return json.loads(command("evaluate", classifier, str(table), "--json"))["scores"]


def refusals() -> dict[str, str]:
    """What is said of uses that need more than the base install."""
    import tfxformer
    from tfxformer import export

    uses = {
        "from tfxformer import tasks": lambda: tfxformer.tasks,
        "tfxformer.build": lambda: tfxformer.build,
        "export.export_litert": lambda: export.export_litert,
        "tfxformer inspect model.keras": lambda: command("inspect", "model.keras", "--debug"),
        "tfxformer demo": lambda: command("demo", "--quick", "--debug"),
    }
    said = {}
    for name, use in uses.items():
        try:
            use()
        except ModuleNotFoundError as error:
            said[name] = str(error)
    return said


def main(classifier: str, decoder: str, seq2seq: str, *refused: str) -> None:
    """Opens a classifier, a language model and an encoder with a decoder, and says what they say."""
    sys.meta_path.insert(0, Refusing(refused))
    start = time.perf_counter()
    from tfxformer.runtime import LiteRTGenerator, LiteRTModel, inspect

    seconds = time.perf_counter() - start
    model, generator, writer = LiteRTModel(classifier), LiteRTGenerator(decoder), LiteRTGenerator(seq2seq)
    found = {
        "probabilities": model.predict(["good film", ("what a bad film", "prices rose")][:1]).tolist(),
        "text": generator.generate("good film", 8),
        "target": writer.generate("good film", 8),
        "best_target": writer.generate("good film", 8, num_beams=3),
        "prompt": generator.chat_prompt([{"role": "user", "content": "good film"}]),
        "operators": inspect(classifier).operators,
        "help": command("--help"),
        "inspect": command("inspect", decoder),
        "predict": json.loads(command("predict", classifier, "good film", "--json")),
        "generate": json.loads(command("generate", decoder, "good film", "--max-new-tokens", "8", "--json")),
        "evaluate": evaluated(classifier),
        "refusals": refusals(),
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "import_seconds": seconds,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
