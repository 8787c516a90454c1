"""The results of the story as a page and as a picture."""

from __future__ import annotations

from tfxformer.figures import BLUE, COLOURS, GREY, figure
from tfxformer.recipes import report

TOPICS = {
    "svm": "TF-IDF of 1 and 2 words, linear SVM",
    "keras": "MiniLM fine-tuned, Keras",
    "file": "MiniLM fine-tuned, int8 file",
}
SENTIMENT = {
    "vader": "VADER's lexicon and rules",
    "ridge": "TF-IDF of 1 and 2 words, ridge regression",
    "keras": "MiniLM fine-tuned, Keras",
    "file": "MiniLM fine-tuned, int8 file",
}
DRAWN = ("earn", "acq", "money-fx", "crude")  # the others are below 5 % most of the time


def with_span(one: dict, form: str = ".3f") -> str:
    low, high = one["interval"]
    return f"{one['mean']:{form}} ({low:{form}} to {high:{form}})"


def drawn(found: dict):
    """The shares of four topics and the mean sentiment, in the order of the wire."""
    picture, (topics, sentiment) = figure(2, (12, 4.2))
    picture.suptitle("Reuters' newswire from April to October 1987, in its order, as two int8 files read it")
    for label, colour in zip(DRAWN, COLOURS, strict=False):
        for name, looks in (("found", {"label": label}), ("reuters", {"linestyle": ":"})):
            shares = [100 * share for share in found["shares"][name][label]]
            topics.plot(found["article"], shares, color=colour, **looks)
    topics.plot([], [], color=GREY, linestyle=":", label="by Reuters' own labels")
    topics.set(title="Topics", xlabel="article of the wire", ylabel="share of the articles, %", ylim=(0, 100))
    topics.legend(fontsize="small", ncols=3, loc="upper center")
    low, high = zip(*found["interval"], strict=True)
    sentiment.fill_between(found["article"], low, high, color=BLUE, alpha=0.2, label="95 % interval", linewidth=0)
    sentiment.plot(found["article"], found["sentiment"], color=BLUE, label="mean")
    sentiment.axhline(0, color=GREY, linewidth=0.8)
    sentiment.set(title="Sentiment", xlabel="article of the wire", ylabel="score, -4 to 4")
    sentiment.legend(fontsize="small")
    return picture


def topics_table(topics: dict) -> str:
    rows = [
        [
            TOPICS[name],
            with_span({"mean": one["accuracy"], "interval": one["interval"]}),
            f"{one['macro_f1']:.3f}",
        ]
        for name, one in topics["variants"].items()
    ]
    return report.markdown(["topics of later articles", "accuracy", "macro F1"], rows)


def sentiment_table(sentiment: dict) -> str:
    rows = [
        [SENTIMENT[name], *(with_span(one[score], ".2f") for score in ("correlation", "sign", "reports_auc"))]
        for name, one in sentiment["variants"].items()
    ]
    header = ["sentiment of held-out sentences", "correlation", "right sign", "AUC on earnings reports"]
    return report.markdown(header, rows)


def section(results: dict) -> str:
    """The results as Markdown."""
    topics, sentiment, machine = (results[name] for name in ("topics", "sentiment", "machine"))
    articles, sentences = (results["data"][name] for name in ("articles", "sentences"))
    seconds = {name: one["processor_seconds"] for name, one in results["training"].items()}
    dials = results["training"]["topics"]["settings"]
    of_topics = sorted(results["over_time"]["of_topics"].items(), key=lambda row: -row[1]["mean"])
    listed = report.markdown(
        ["topic as found", "mean sentiment", "articles"],
        [[label, with_span(one, ".2f"), str(one["articles"])] for label, one in of_topics],
    )
    return f"""{topics_table(topics)}

{articles["learned"]:,} articles up to 7 April 1987 to learn, {articles["tested"]:,} later ones to test.
The file's accuracy less that of the SVM, which learned of the same articles: {with_span(topics["advantage"], "+.3f")}.
It says what Keras says of {topics["same_as_keras"]:.1%}.

{sentiment_table(sentiment)}

{sentences["learned"]:,} sentences of editorials to learn, {sentences["tested"]:,} of other editorials to test.
The file's correlation with people's scores less that of the ridge regression:
{with_span(sentiment["advantage"]["ridge"], "+.2f")};
less VADER's: {with_span(sentiment["advantage"]["vader"], "+.2f")}.
Its scores correlate with Keras' by {sentiment["same_as_keras"]:.4f}. The earnings reports are {sentiment["reports"]}
articles that say "profit ... vs loss" or "loss ... vs profit"; none of them was learned of. An AUC of 0.5 is chance.

![topics and sentiment over time](over-time.png)

{listed}

In brackets are 95 % intervals by bootstraps of the texts. The files have {topics["bytes"] / 1e6:.1f} and
{sentiment["bytes"] / 1e6:.1f} MB; a topic took {topics["milliseconds"]:.1f} ms of the processor. Texts are cut at
{dials["topic_tokens"]} and {dials["sentiment_tokens"]} tokens; {dials["topic_epochs"]} and {dials["sentiment_epochs"]}
epochs took {seconds["topics"]:.0f} and {seconds["sentiment"]:.0f} s of the processor. {machine["cores"]} cores of
{machine["processor"]}, {results["date"]}.
"""
