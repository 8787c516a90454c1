"""The results of the story as Markdown."""

from __future__ import annotations

from tfxformer.recipes import report

CATEGORIES = {
    "svm": "TF-IDF of 1 and 2 words, linear SVM",
    "keras": "MiniLM fine-tuned, Keras",
    "file": "MiniLM fine-tuned, int8 file",
}
ANSWERS = {
    "tf_idf": "TF-IDF of words",
    "bm25": "BM25",
    "before": "MiniLM as it was, Keras",
    "keras": "MiniLM fine-tuned, Keras",
    "file": "MiniLM fine-tuned, int8 file",
}
REPLIES = {
    "answer": "the answer that was found, as it is",
    "chat_with_answer": "SmolLM2, given that answer",
    "chat_alone": "SmolLM2 alone",
}


def span(interval: list[float], form: str = ".2f") -> str:
    return f"({interval[0]:{form}} to {interval[1]:{form}})"


def better(gap: dict) -> str:
    return f"{gap['mean']:+.3f} {span(gap['interval'], '+.3f')}"


def tables(results: dict) -> tuple[str, str, str]:
    """Of categories, of answers and of replies."""
    categories, answers, said = (results[name]["variants"] for name in ("categories", "answers", "replies"))
    return (
        report.markdown(
            ["category", "accuracy"],
            [[CATEGORIES[name], f"{one['accuracy']:.3f} {span(one['interval'])}"] for name, one in categories.items()],
        ),
        report.markdown(
            ["answer", "MRR", "recall@1", "recall@5"],
            [
                [
                    ANSWERS[name],
                    *(f"{one[score]:.3f} {span(one[score + '_interval'])}" for score in ("mrr", "recall@1")),
                    f"{one['recall@5']:.3f}",
                ]
                for name, one in answers.items()
            ],
        ),
        report.markdown(
            ["reply", "F1 with the right answer", "grounded", "words"],
            [
                [
                    REPLIES[name],
                    *(f"{one[score]['mean']:.2f} {span(one[score]['interval'])}" for score in ("f1", "grounded")),
                    f"{one['words']['mean']:.0f}",
                ]
                for name, one in said.items()
            ],
        ),
    )


def section(results: dict) -> str:
    """The results as Markdown."""
    data, machine = results["data"], results["machine"]
    categories, answers, said = (results[name] for name in ("categories", "answers", "replies"))
    of_category, of_answer, of_reply = tables(results)
    seconds = {name: one["processor_seconds"] for name, one in results["training"].items()}
    dials = results["training"]["embedder"]["settings"]
    shown = "\n".join(
        f"- **{one['question']}**\n"
        + "\n".join(f"  - {REPLIES[name]}: {' '.join(one[name].split())}" for name in REPLIES)
        for one in said["shown"]
    )
    return f"""{of_category}

{of_answer}

{of_reply}

{data["questions"]} questions of {data["categories"]} categories; {data["learned"]} with their answers to learn, and
{data["held_out"]} held out, whose answers are to be found among all {data["questions"]}. In brackets are 95 % intervals
by bootstraps of the questions. The file of categories is better than the SVM by {better(categories["advantage"])}. The
file that finds answers is better than TF-IDF by {better(answers["advantage"]["tf_idf"])} of MRR, than BM25 by
{better(answers["advantage"]["bm25"])}, and than MiniLM as it was by {better(answers["advantage"]["before"])}.
Keras says the same category in {categories["same_as_keras"]:.1%} of the questions and finds the same answer in
{answers["same_first"]:.1%}.

The replies are those to {said["questions"]} of the held-out questions; for {said["found"]:.0%} of them the right answer
was found. Grounded is the share of the reply's content words that stand in the answer found; F1 is SQuAD's, of words.
SmolLM2's F1 with the answer, less that of SmolLM2 alone, is {better(said["f1_beside"]["chat_alone"])}; less that of the
answer itself, {better(said["f1_beside"]["answer"])}.

The files have {categories["bytes"] / 1e6:.1f}, {answers["bytes"] / 1e6:.1f} and {said["bytes"] / 1e6:.1f} MB. A
category took {categories["milliseconds"]:.1f} ms of the processor, a reply {said["seconds_a_reply"]:.1f} s beside
other work. Training took {seconds["categories"]:.0f} and {seconds["embedder"]:.0f} s of the processor
({dials["category_epochs"]} and {dials["answer_epochs"]} epochs). {machine["cores"]} cores of {machine["processor"]},
{results["date"]}.

The first held-out questions:

{shown}
"""
