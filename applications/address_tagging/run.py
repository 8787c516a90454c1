"""Parts of United States addresses: a label for each word, by MiniLM-L6 on a phone.

Expected: see README.md beside, which the full run writes.
Command: python applications/address_tagging/run.py [--quick]
"""

from pathlib import Path

from tfxformer import samples, tasks
from tfxformer.export import LiteRTModel
from tfxformer.recipes import story
from tfxformer.recipes.pipeline import Settings

ADDRESS = "1600 Pennsylvania Avenue NW Washington DC 20500"

STORY = story.Story(
    name="address-tagging",
    title="Parts of United States addresses",
    task=tasks.TokenClassifier,
    checkpoint=samples.minilm,
    split=samples.usaddress,
    full=Settings(
        sequence_length=32,
        epochs=8,
        prune_epochs=4,
        learning_rate=3e-4,
        prune_learning_rate=2e-4,
        validation_split=0.05,
    ),
    quick=Settings(
        sequence_length=32, epochs=4, prune_epochs=2, learning_rate=5e-4, prune_learning_rate=3e-4, train_texts=640
    ),
    data="Says of each word of an address which part of it it is (house number, street, ZIP code, ...). Trained on "
    "the labelled addresses of usaddress.",
    limits="Addresses in the United States only, a word being what stands between spaces.",
)

if __name__ == "__main__":
    results = story.main(STORY, Path(__file__).parent)
    tagger = LiteRTModel(Path(results["folder"]) / results["variants"]["litert-dynamic_int8"]["file"])
    (labels,) = tagger.predict([ADDRESS])
    for word, label in zip(ADDRESS.split(), labels, strict=True):
        print(f"{word:<14}{label}")
