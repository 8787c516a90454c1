"""Runs a .tflite file in MediaPipe's text tasks; for an environment of its own.

Usage: python mediapipe_text.py classify|embed model.tflite texts.json
Prints JSON: for "classify" a {label: score} for each text, for "embed" a vector for each text.
"""

import json
import sys
from pathlib import Path

from mediapipe.tasks.python import BaseOptions, text


def classify(path, texts):
    options = text.TextClassifierOptions(base_options=BaseOptions(model_asset_path=path))
    with text.TextClassifier.create_from_options(options) as classifier:
        heads = [classifier.classify(sample).classifications for sample in texts]
    if any(len(head) != 1 for head in heads):
        raise SystemExit("The file has more than one output: MediaPipe reads each as a classifier.")
    return [{c.category_name: c.score for c in head[0].categories} for head in heads]


def embed(path, texts):
    options = text.TextEmbedderOptions(base_options=BaseOptions(model_asset_path=path))
    with text.TextEmbedder.create_from_options(options) as embedder:
        return [embedder.embed(sample).embeddings[0].embedding.tolist() for sample in texts]


if __name__ == "__main__":
    job, model, samples = sys.argv[1:]
    run = {"classify": classify, "embed": embed}[job]
    print(json.dumps(run(model, json.loads(Path(samples).read_text(encoding="utf-8")))))
