"""What was tried before run.py was settled: each of some dials, on a fifth of the tweets to learn, never on the test.

Expected: see RESULTS-tried.md beside, which this writes.
Command: python applications/entities/tried.py
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from baselines import WAYS
from run import Settings, measured, timed, trained

from tfxformer import samples
from tfxformer.files import write_json
from tfxformer.json_files import read_json
from tfxformer.recipes import report

HOME = Path(__file__).parent
KEPT = HOME / "tried.json"
# One after the other, each from the best before it.
PLAIN = replace(Settings(), marks=False, layer_decay=1.0, learning_rate=2e-4, seeds=(1,))
TRIED = {
    "fine-tuned as it comes": PLAIN,
    "capitals told by a mark": replace(PLAIN, marks=True),
    "lower layers learn less": replace(PLAIN, marks=True, learning_rate=5e-4, layer_decay=0.8),
}


def parts() -> tuple[list, list, list, list, list]:
    """(texts, tags, held-out texts, held-out tags, labels): the last fifth of the tweets to learn is held out."""
    split = samples.tweet_entities()
    kept = int(len(split.train_texts) * 0.8)
    texts, tags = split.train_texts, split.train_labels
    return texts[:kept], tags[:kept], texts[kept:], tags[kept:], split.labels


def run(path: Path, tried: dict[str, Settings]) -> dict:
    """Measures what the file does not hold yet."""
    texts, tags, held_texts, held_tags, labels = parts()
    found = read_json(path) if path.is_file() else {}
    for name, settings in tried.items():
        dials = json.loads(json.dumps(asdict(settings)))
        if found.get(name, {}).get("settings") == dials:
            continue
        tagger, seconds = timed(lambda settings=settings: trained(texts, tags, labels, settings, 2))
        scores = measured(held_tags, tagger.predict(held_texts, 32, verbose=0))
        found[name] = {**scores, "settings": dials, "processor_seconds": seconds}
        write_json(path, found)
        print(name, f"{scores['f1']:.3f}", flush=True)
    for name, way in WAYS.items():
        if name not in found:
            found[name] = measured(held_tags, way(texts, tags, held_texts))
    write_json(path, found)
    return {name: found[name] for name in (*WAYS, *tried)}


def section(found: dict) -> str:
    """The results as Markdown."""
    dials = ("learning_rate", "layer_decay", "epochs", "outside")
    rows = [
        [
            name,
            f"{one['f1']:.3f}",
            f"{one['interval'][0]:.3f} to {one['interval'][1]:.3f}",
            *(f"{one['settings'][dial]:g}" if "settings" in one else "" for dial in dials),
            str(len(one["settings"]["seeds"])) if "settings" in one else "",
        ]
        for name, one in found.items()
    ]
    return f"{report.markdown(['', 'entity F1', '95 % interval', *dials, 'trainings'], rows)}\n".replace("_", " ")


if __name__ == "__main__":
    report.update_section(HOME / "RESULTS-tried.md", section(run(KEPT, TRIED)))
