"""Recipes read from YAML: checked whole before anything runs, and all that is wrong said at once."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import fields
from pathlib import Path

import yaml

from tfxformer import samples
from tfxformer.recipes.sweep.recipe import AXES, MOST_POINTS, Choose, Point, Recipe
from tfxformer.recipes.sweep.values import WHOLE, check_known, is_mapping, make, value_of

MOST_BYTES = 1 << 20
MOST_NODES = 20_000  # with those that aliases repeat
DEEPEST = 20


def read_recipe(path) -> Recipe:
    """The recipe of a YAML file.

    Raises:
        ValueError: naming the file, and for every value that is wrong the key and what is wanted there. OSError:
            where it cannot be read.
    """
    path = Path(path)
    content = read_yaml(path)
    try:
        recipe = make_recipe(content, path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    if isinstance(recipe.data, dict):  # files are named from the recipe's own folder
        files = {part: str(path.parent / name) for part, name in recipe.data.items()}
        recipe = dataclasses.replace(recipe, data=files)
    return recipe


def read_yaml(path: Path):
    """The plain values of a YAML file of bounded size.

    Raises:
        ValueError: naming the file: for what is no YAML, more than `MOST_BYTES`, nested deeper than `DEEPEST`, more
            than `MOST_NODES` values where its aliases are written out, or a key that stands twice.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; a recipe has at most {MOST_BYTES:,}.")
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and (count := _size(node, {})) > MOST_NODES:
            raise yaml.YAMLError(f"{count:,} values where its aliases are written out; at most {MOST_NODES:,} are read")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # bytes that are not UTF-8, numbers that are none, are ValueErrors
        raise ValueError(f"{path} is not YAML that can be read: {error}") from error


def _check_depth(text: str) -> None:
    """Refuses what is nested so deep that reading it would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1} is nested deeper than {DEEPEST} levels")


def _size(node, known: dict) -> int:
    """The values below a node, those of an alias each time; a key that stands twice is refused."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # of a node that holds itself
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {', '.join(twice)} stands there twice")
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def make_recipe(content, folder: Path | None = None) -> Recipe:
    """A recipe of plain values, as YAML has them.

    Args:
        folder: where the files of its data must be; None leaves its data unchecked.

    Raises:
        ValueError: naming every key whose value is wrong, and what is wanted there.
    """
    errors: list[str] = []
    recipe = _recipe(content, folder, errors)
    if errors:
        several = f"{len(errors)} errors: " if len(errors) > 1 else ""
        raise ValueError(several + "; ".join(errors))
    return recipe


def _recipe(content, folder, errors: list[str]):
    if not is_mapping(content, WHOLE, Recipe, errors):
        return None
    content = dict(content)
    if (data := content.get("data")) is not None:
        _check_data(data, folder, errors)
    grids = content.pop("sweep", None)
    listed = grids if isinstance(grids, list) else [grids]
    if not listed or not all(isinstance(grid, dict) and grid for grid in listed):
        errors.append(f"sweep: wanted a mapping of {', '.join(AXES)} to lists of settings, or a list of such")
        listed = []
    places = [f"sweep[{index}]" if len(listed) > 1 else "sweep" for index in range(len(listed))]
    made = tuple(_grid(grid, place, errors) for grid, place in zip(listed, places, strict=True))
    count = sum(math.prod(len(settings) for settings in grid.values()) for grid in made)
    if count > MOST_POINTS:
        errors.append(f"sweep: {count:,} combinations; at most {MOST_POINTS:,} are tried")
    choose = make(Choose, content.pop("choose", {}), "choose", errors)
    return make(Recipe, {**content, "sweep": made, "choose": choose}, WHOLE, errors)


def _check_data(data, folder: Path | None, errors: list[str]) -> None:
    """Refuses a name that is no sample, and files that are not there."""
    if isinstance(data, str):
        if folder is not None and data not in samples.SPLITS:
            errors.append(
                f"data: {data!r} is no labelled sample; known: {', '.join(samples.SPLITS)}. Files are "
                "{train: FILE, test: FILE}"
            )
    elif (
        not isinstance(data, dict)
        or set(data) != {"train", "test"}
        or not all(isinstance(f, str) for f in data.values())
    ):
        errors.append("data: files are {train: FILE, test: FILE}")
    elif folder is not None:
        errors += [
            f"data.{part}: there is no file {folder / f}" for part, f in data.items() if not (folder / f).is_file()
        ]


def _grid(grid: dict, place: str, errors: list[str]) -> dict:
    """{axis: settings}, each made of plain values."""
    check_known(grid, AXES, place, errors)
    kinds, rules, found = typing.get_type_hints(Point), {one.name: one for one in fields(Point)}, {}
    for axis in AXES:
        if axis not in grid:
            continue
        settings = grid[axis]
        if not isinstance(settings, list) or not settings:
            errors.append(f"{place}.{axis}: wanted a list of settings, got {settings!r}")
            continue
        found[axis] = tuple(
            value_of(kinds[axis], one, f"{place}.{axis}[{index}]", errors, rules[axis])
            for index, one in enumerate(settings)
        )
    return {axis: found[axis] for axis in grid if axis in found}
