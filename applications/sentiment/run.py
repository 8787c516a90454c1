"""Sentiment of film reviews: MiniLM-L6 fine-tuned with early stopping, pruned to one half, exported, measured.

Expected: see README.md beside, which the full run writes.
Command: python applications/sentiment/run.py [--quick]
"""

from pathlib import Path

from tfxformer import samples, tasks
from tfxformer.recipes import story
from tfxformer.recipes.pipeline import Settings

STORY = story.Story(
    name="sentiment",
    title="Sentiment of film reviews",
    task=tasks.TextClassifier,
    checkpoint=samples.minilm,
    split=samples.vader_movies,
    # 5 % of the training texts decide when to stop; the test texts are looked at only once.
    full=Settings(
        sequence_length=48,
        epochs=2,
        prune_epochs=1,
        learning_rate=1e-4,
        prune_learning_rate=1e-4,
        validation_split=0.05,
    ),
    quick=Settings(
        sequence_length=32,
        epochs=2,
        prune_epochs=1,
        learning_rate=2e-4,
        prune_learning_rate=1e-4,
        validation_split=0.05,
        train_texts=960,
        test_texts=400,
    ),
    data="Says whether a sentence of a film review is for or against. Trained on the movie snippets of VADER "
    "(Hutto and Gilbert, 2014) with a score of at least 1 either way.",
    limits="English sentences from film reviews; there is no neutral answer.",
)

if __name__ == "__main__":
    story.main(STORY, Path(__file__).parent)
