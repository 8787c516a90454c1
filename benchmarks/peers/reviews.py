"""`LiteRTModel.predict` on real movie reviews of mixed lengths: one file for 128 tokens, and one of several lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LENGTHS = (16, 32, 64, 128)
ONE, SEVERAL = "classifier-1-dynamic_int8.tflite", "classifier-lengths-dynamic_int8.tflite"
# What is opened, and the threads that it is opened with; None is our default.
ROADS = {
    "several lengths, side by side": (SEVERAL, None),
    "several lengths, one by one": (SEVERAL, 2),
    "128 tokens, side by side": (ONE, None),
    "128 tokens, one by one": (ONE, 2),
}
OURS = next(iter(ROADS))


def write(folder) -> None:
    """The file of several lengths, beside those of `files.write_litert`."""
    from peers import files
    from tfxformer import export, tasks

    folder = Path(folder)
    task = tasks.TextClassifier.from_pretrained(folder / "checkpoint", labels=files.LABELS)
    export.export_litert(task, folder / SEVERAL, "dynamic_int8", sequence_lengths=LENGTHS)


@dataclass(frozen=True)
class Road:
    """One way to answer `count` reviews, ready to be sent to a process of its own."""

    name: str
    folder: str
    count: int

    @property
    def __name__(self):
        return self.name

    def __call__(self):
        import random
        import warnings

        from tfxformer import samples
        from tfxformer.runtime import LiteRTModel

        texts = list(samples.vader_movies().train_texts)
        random.Random(0).shuffle(texts)
        file, threads = ROADS[self.name]
        model = LiteRTModel(Path(self.folder) / file, num_threads=threads)
        warnings.simplefilter("ignore")  # of texts that are cut
        return lambda: model.predict(texts[: self.count])
