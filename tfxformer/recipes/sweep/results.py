"""What a sweep found: the choice, a table, a page and the plots."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tfxformer.data.files.rows import WRITES_TARGETS
from tfxformer.data.text_scores import POINTS
from tfxformer.figures import BLUE, GREY, VERMILION, figure, name_points, plain_log, save_figure
from tfxformer.recipes.report import markdown
from tfxformer.recipes.sweep.recipe import Choose

LABELS = {"bytes": "size, MB", "zipped_bytes": "zipped size, MB", "median_ms": "time of one text, ms"}


def compared(points: list[dict]) -> list[dict]:
    """The points beside the first, the baseline: times smaller and faster, and points of the score lost.

    Where it is known which texts a point gets `right`, the losses have standard errors, those of a difference of two
    models on the same texts; `right` itself is left out.
    """
    found, first = [], points[0]
    scale = POINTS.get(first.get("main_score"), 100.0)
    for point in points:
        point = dict(point)
        right = point.pop("right", None)
        if "refused" not in point:
            point["smaller"] = first["bytes"] / point["bytes"]
            point["faster"] = first["latency"]["median_ms"] / point["latency"]["median_ms"]
            point["lost"] = {part: scale * (first[part] - point[part]) for part in ("validation", "test")}
            if right is not None:
                point["standard_errors"] = {part: _error(first["right"][part], own) for part, own in right.items()}
        found.append(point)
    return found


def _error(first: str, other: str) -> float:
    """Standard error of the difference of two accuracies, in hundredths; texts answered right are "1"."""
    difference = np.array(list(first)).astype(float) - np.array(list(other)).astype(float)
    return float(100.0 * difference.std() / math.sqrt(len(difference)))


def measure(point: dict, size: str) -> float:
    """A point's "bytes", "zipped_bytes" or "median_ms"."""
    return point["latency"]["median_ms"] if size == "median_ms" else point[size]


def choose(points: list[dict], wanted: Choose) -> int | None:
    """The place of the smallest point that is good enough on the held-out texts; None if none is.

    Good enough is what loses at most `most_points_lost` there, less one standard error of the loss where it is known:
    of models that chance might have ordered otherwise the simplest (Breiman et al., 1984, section 3.4.3).
    """

    def surely_lost(point) -> float:
        return point["lost"]["validation"] - point.get("standard_errors", {}).get("validation", 0.0)

    able = [
        i for i, point in enumerate(points) if "refused" not in point and surely_lost(point) <= wanted.most_points_lost
    ]
    return min(able, key=lambda i: measure(points[i], wanted.smallest), default=None)


def pareto(points: list[dict], size: str) -> list[int]:
    """The places of the points that no other beats: none is as small or smaller with a higher test score."""
    best, front = -math.inf, []
    measured = [i for i, point in enumerate(points) if "refused" not in point]
    for index in sorted(measured, key=lambda i: (measure(points[i], size), -points[i]["test"])):
        if points[index]["test"] > best:
            best = points[index]["test"]
            front.append(index)
    return front


def table(found: dict) -> tuple[list[str], list[list[str]]]:
    """The points as (header, rows) of strings, number and name first; s and t mark the Pareto points."""
    points, score = found["points"], found["main_score"].replace("_", " ")
    fronts = {mark: pareto(points, size) for mark, size in (("s", "bytes"), ("t", "median_ms"))}
    header = ["", "point", "lost, held out", score, "lost", "MB", "zip MB", "smaller", "ms", "faster", "best"]
    rows = []
    for index, point in enumerate(points):
        number = f"{index}{' (chosen)' if index == found['chosen'] else ''}"
        if "refused" in point:
            rows.append([number, point["name"], *[""] * 8, "refused"])
            continue
        rows.append(
            [
                number,
                point["name"],
                _loss(point, "validation"),
                f"{point['test']:.4f}",
                _loss(point, "test"),
                f"{point['bytes'] / 1e6:.1f}",
                f"{point['zipped_bytes'] / 1e6:.1f}",
                f"{point['smaller']:.1f}x",
                f"{point['latency']['median_ms']:.2f}",
                f"{point['faster']:.1f}x",
                " ".join(mark for mark, front in fronts.items() if index in front),
            ]
        )
    return header, rows


def _loss(point: dict, part: str) -> str:
    errors = point.get("standard_errors")
    return f"{point['lost'][part]:.2f}" + (f" ± {errors[part]:.2f}" if errors and errors[part] else "")


def conclusion(found: dict) -> str:
    """The choice in a sentence."""
    wanted = found["recipe"]["choose"]
    limit = f"{wanted['most_points_lost']:g} points of the baseline (and a standard error) on held-out texts"
    rule = f"smallest in {wanted['smallest']} within {limit}"
    if found["chosen"] is None:
        return f"No point is the {rule}."
    point = found["points"][found["chosen"]]
    return (
        f"Chosen, as the {rule}: **{point['name']}**, {point['smaller']:.1f} times smaller and {point['faster']:.1f} "
        f"times faster than the float32 file, {_loss(point, 'test')} points of {found['main_score']} lost on the test "
        "texts."
    )


def conditions(found: dict) -> str:
    """How the figures came about, in one paragraph."""
    recipe, data, machine = found["recipe"], found["data"], found["machine"]
    losses = f"points of {found['main_score']}" if found["main_score"] in POINTS else "hundredths of the score"
    timed = "a longest source read and target written" if recipe["task"] == WRITES_TARGETS else "one text"
    return (
        f"{data['train_texts']:,} texts to train on, {data['validation_texts']:,} held out for the choice, "
        f"{data['test_texts']:,} to test, cut at {recipe['sequence_length']} tokens; batch {recipe['batch_size']}, "
        f"{recipe['dtype'] or 'float32'}, seed {recipe['seed']}. All scores are those of the .tflite files, text by "
        f"text. Training took {found['seconds_of_stages']:.0f} s on {machine['cores']} cores of "
        f"{machine['processor']}, {found['date']}. Times are medians of {recipe['latency_rounds']} runs of {timed} in "
        "turn with the other files, on one thread, without tokenizing; zip is deflate, what an app store ships. Losses "
        f"are {losses} against point 0, with their standard errors. Best: s, no other file is as small "
        "with a higher score; t, none as fast."
    )


def results_page(found: dict) -> str:
    """RESULTS.md: the choice, the table, what was refused and why, the conditions."""
    parts = [f"# {found['name']}", conclusion(found), markdown(*table(found))]
    refused = [(index, point) for index, point in enumerate(found["points"]) if "refused" in point]
    if refused:
        parts.append("\n".join(f"- {index}. was refused: {point['refused']}" for index, point in refused))
    parts += ["![score over size](score-over-size.png)", "![score over latency](score-over-latency.png)"]
    return "\n\n".join([*parts, conditions(found)]) + "\n"


def plot(found: dict, size: str, path: Path) -> None:
    """The scores over a size: points by their names, the Pareto front as a line, the chosen one as a star."""
    points, scale = found["points"], 1.0 if size == "median_ms" else 1e-6
    good = [index for index, point in enumerate(points) if "refused" not in point]
    places = {index: (scale * measure(points[index], size), points[index]["test"]) for index in good}
    drawn, (panel,) = figure(1, (8.5, 5.5))
    others = [places[index] for index in good if index != found["chosen"]]
    panel.plot([x for x, _ in others], [y for _, y in others], "o", color=BLUE, label="a way to make the model small")
    front, how = [places[index] for index in pareto(points, size)], "fast" if size == "median_ms" else "small"
    panel.plot(*zip(*front, strict=True), color=BLUE, zorder=1, label=f"best: none as {how} has a higher score")
    if found["chosen"] is not None:
        panel.plot(*places[found["chosen"]], "*", color=VERMILION, markersize=14, label="chosen")
    points_lost, score = found["recipe"]["choose"]["most_points_lost"], found["main_score"].replace("_", " ")
    limit = points[0]["test"] - points_lost / POINTS.get(found["main_score"], 100.0)
    panel.axhline(
        limit,
        color=GREY,
        linestyle=":",
        label=f"{points_lost:g} point{'s' * (points_lost != 1)} below {points[0]['name']}",
    )
    panel.set(title=f"{found['name']}: {score} over {LABELS[size]}", xlabel=LABELS[size], ylabel=f"{score}, test texts")
    plain_log(panel.xaxis)
    panel.margins(0.2)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    name_points(panel, list(places.values()), [points[index]["name"] for index in good])
    save_figure(drawn, path)
