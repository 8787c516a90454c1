"""Recipes: what YAML means, and what is said of one that is wrong."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.recipes.sweep.reading import make_recipe, read_recipe
from tfxformer.recipes.sweep.recipe import Distil, Point, Prune, Structure, Tune

SMALL = {"name": "small", "model": "minilm", "data": "vader_movies", "sweep": {"quantize": ["dynamic_int8"]}}


def test_a_recipe_is_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").touch()
    path.write_text(
        """
name: small
model: some/folder
data: {train: train.csv, test: test.csv}
sweep:
  - quantize: [float32, float16]
  - tune: [{epochs: 3, learning_rate: 5e-4, lora: 8}]
    structure: [null, {heads: 6, neurons: 768}]
    prune: [{sparsity: 0.25}]
choose: {most_points_lost: 2, smallest: zipped_bytes}
""",
        encoding="utf-8",
    )
    recipe = read_recipe(path)
    assert recipe.data == {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}
    assert (recipe.choose.most_points_lost, recipe.choose.smallest) == (2.0, "zipped_bytes")
    lora = Tune(3, 5e-4, 8)  # 5e-4 is a text to YAML 1.1
    assert recipe.points == [
        Point(quantize="float32"),
        Point(quantize="float16"),
        Point(lora, prune=Prune(0.25)),
        Point(lora, structure=Structure(heads=6, neurons=768), prune=Prune(0.25)),
    ]


PAIRS = {"task": "seq2seq-lm", "data": {"train": "train.tsv", "test": "test.tsv"}}
SETTINGS = {
    "vocabulary": ["whole", "trimmed"],
    "structure": [None, {"layers": 3}, {"heads": 2}],
    "distil": [None, {}, {"epochs": 5}],
    "prune": [None, {"sparsity": 0.5}],
    "quantize": ["float32", "dynamic_int8", "int8"],
}


GRIDS = {axis: st.lists(st.sampled_from(one), min_size=1, max_size=2) for axis, one in SETTINGS.items()}


@settings(max_examples=20, deadline=None)
@given(st.fixed_dictionaries(GRIDS))
def test_all_combinations_are_tried_once_behind_the_baseline(grid):
    points = make_recipe({**SMALL, "sweep": grid}).points
    wanted = {str(combination) for combination in itertools.product(*(grid[axis] for axis in SETTINGS))}
    baseline = str(("whole", None, None, None, "float32"))
    assert len(points) == len(set(points)) == len(wanted | {baseline})
    assert points[0] == Point(quantize="float32")


@given(st.sampled_from(["vocabulary", "structure", "distil", "prune", "quantize"]))
def test_a_stage_depends_on_what_came_before_it_alone(axis):
    one = Point(Tune(), "trimmed", Structure(layers=3), Distil(), Prune(), "float32")
    others = [Point(Tune(), "trimmed", Structure(layers=3), Distil(), Prune(), "int8")]
    others.append(Point(Tune(), "trimmed", Structure(layers=3), Distil(), Prune(0.9), "int8"))
    same = [one.until(axis) == other.until(axis) for other in others]
    assert same == {"quantize": [False, False], "prune": [True, False]}.get(axis, [True, True])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweeps": 1}, r"unknown 'sweeps' \(did you mean sweep\?\); known: name, model, data, sweep"),
        (
            {"sweep": {"quantise": ["int8"]}},
            r"sweep: unknown 'quantise' \(did you mean quantize\?\); known: tune, vocabulary",
        ),
        ({"sweep": {"quantize": "int8"}}, "sweep.quantize: wanted a list of settings, got 'int8'"),
        (
            {"sweep": {"structure": [{"head": 6}]}},
            r"sweep.structure\[0\]: unknown 'head' \(did you mean heads\?\); known: layers, heads",
        ),
        ({"sweep": {"structure": [{}]}}, r"sweep.structure\[0\]: says nothing: give layers, heads or neurons"),
        ({"sweep": {"structure": [{"heads": 1.5}]}}, r"structure\[0\].heads: wanted an integer, got 1.5"),
        ({"sweep": {"prune": [{"sparsity": "half"}]}}, r"prune\[0\].sparsity: wanted a number, got 'half'"),
        ({"sweep": {"prune": [{"sparsity": 1}]}}, "sparsity=1.0 must be a share between 0 and 1"),
        ({"sweep": {"vocabulary": ["cut"]}}, r"sweep.vocabulary\[0\]='cut' must be one of whole, trimmed"),
        ({"sweep": []}, "sweep: wanted a mapping of tune, vocabulary"),
        ({"validation": 0}, "validation=0.0 must be a share"),
        ({"task": "fill-mask"}, "task='fill-mask' must be one of text-classification, token-classification"),
        ({"task": "seq2seq-lm"}, "data must be {train: FILE, test: FILE}, with the columns source and target"),
        (
            {**PAIRS, "sweep": {"quantize": ["int8"]}},
            "quantize='int8' is not for decoders: keys and values come and go as float32",
        ),
        ({"target_length": 9}, "target_length is for task=seq2seq-lm; this one is text-classification"),
        ({"sweep": {"structure": [{"layers": 1, "stack": "decoder"}]}}, "stack is for task=seq2seq-lm"),
        ({"target_language": "fr"}, "target_language is for task=seq2seq-lm"),
        ({"sweep": {"distil": [{"beams": 4}]}}, "beams is for task=seq2seq-lm"),
        ({**PAIRS, "sweep": {"structure": [{"layers": 1, "stack": "both"}]}}, "stack='both' must be one of encoder"),
        ({"choose": {"smallest": "size"}}, "choose.smallest='size' must be one of bytes, zipped_bytes, median_ms"),
        ({"data": {"train": "a.csv"}}, "data: files are {train: FILE, test: FILE}"),
        ({"name": "a/b"}, "must be a file's name without folders"),
        ({"seed": True}, "seed: wanted an integer"),
    ],
)
def test_errors_name_the_place_and_what_is_wanted(changes, message):
    with pytest.raises(ValueError, match=message):
        make_recipe({**SMALL, **changes})


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"the recipe: lacks \['model', 'data'\]"):
        make_recipe({"name": "small", "sweep": {"quantize": ["int8"]}})
    path = tmp_path / "recipe.yaml"
    path.write_text("name: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"recipe\.yaml is not YAML"):
        read_recipe(path)
    path.write_text("- name", encoding="utf-8")
    with pytest.raises(ValueError, match=r"recipe\.yaml: the recipe: wanted a mapping"):
        read_recipe(path)


def test_what_a_yaml_file_says_twice_or_too_deep_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nmodel: b\nname: c\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: name stands there twice"):
        read_recipe(path)
    path.write_text("name: " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="nested deeper than 20 levels"):
        read_recipe(path)
    path.write_text("name: " + "x" * (1 << 20), encoding="utf-8")
    with pytest.raises(ValueError, match="a recipe has at most 1,048,576"):
        read_recipe(path)
