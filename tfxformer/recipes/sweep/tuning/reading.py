"""Recipes of a search, read from YAML: checked whole before anything runs, and all that is wrong said at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfxformer import samples
from tfxformer.recipes.sweep.reading import read_yaml
from tfxformer.recipes.sweep.tuning.recipe import DIALS, Dial, Kind, Recipe
from tfxformer.recipes.sweep.values import WHOLE, WRONG, check_known, is_mapping, make

WANTED = "a list of values such as [16, 32], or an interval such as {min: 1.0e-5, max: 1.0e-3, log: true}"
PARTS = ("train", "validation")


def read_recipe(path) -> Recipe:
    """The recipe of a YAML file; files in it are named from its folder.

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
    if isinstance(recipe.data, dict):
        data = {part: str(path.parent / name) for part, name in recipe.data.items()}
        recipe = dataclasses.replace(recipe, data=data)
    return recipe


def make_recipe(content, folder: Path | None = None) -> Recipe:
    """A recipe of plain values, as YAML has them.

    Args:
        folder: where the files of its data must be; None leaves them unchecked.

    Raises:
        ValueError: naming every key whose value is wrong, and what is wanted there.
    """
    errors: list[str] = []
    recipe = WRONG
    if is_mapping(content, WHOLE, Recipe, errors):
        content = dict(content)
        if "data" in content:
            _check_data(content["data"], folder, errors)
        if "space" in content:
            content["space"] = _space(content["space"], errors)
        recipe = make(Recipe, content, WHOLE, errors)
    if errors:
        several = f"{len(errors)} errors: " if len(errors) > 1 else ""
        raise ValueError(several + "; ".join(errors))
    return recipe


def _check_data(data, folder: Path | None, errors: list[str]) -> None:
    """Refuses a name that is no sample, and files that are not there."""
    if isinstance(data, str):
        if data not in samples.SPLITS:
            errors.append(
                f"data: {data!r} is no labelled sample; known: {', '.join(samples.SPLITS)}. A file of yours is "
                "{train: FILE}"
            )
    elif not isinstance(data, dict) or "train" not in data or not set(data) <= set(PARTS):
        errors.append(
            f"data: wanted {{train: FILE}}, {{train: FILE, validation: FILE}} or the name of a sample, got {data!r:.80}"
        )
    elif not all(isinstance(name, str) for name in data.values()):
        errors.append(f"data: wanted names of files, got {data!r:.80}")
    elif folder is not None:
        errors += [
            f"data.{part}: there is no file {folder / name}"
            for part, name in data.items()
            if not (folder / name).exists()
        ]


def _space(space, errors: list[str]) -> dict:
    """{name: Dial}; where anything is wrong, which is said, names alone."""
    if not isinstance(space, dict):
        errors.append(f"space: wanted a mapping of {', '.join(DIALS)}, got {space!r:.80}")
        return {}
    before = len(errors)
    check_known(space, DIALS, "space", errors)
    dials = {name: _dial(space[name], f"space.{name}", DIALS[name], errors) for name in DIALS if name in space}
    return dials if len(errors) == before else dict.fromkeys(space, Dial())


def _dial(given, place: str, kind: Kind, errors: list[str]) -> Dial | None:
    if isinstance(given, list) and given:
        values = tuple(_number(value, place, kind, errors) for value in given)
        if len(set(values)) < len(values) and None not in values:
            errors.append(f"{place}: a value stands there twice in {given!r:.80}")
        return None if None in values else Dial(values=values)
    if not isinstance(given, dict) or not {"min", "max"} <= set(given) <= {"min", "max", "log"}:
        errors.append(f"{place}: wanted {WANTED}, got {given!r:.80}")
        return None
    low, high = (_number(given[end], f"{place}.{end}", kind, errors) for end in ("min", "max"))
    log = given.get("log", False)
    if low is None or high is None:
        return None
    if not isinstance(log, bool):
        errors.append(f"{place}.log: wanted true or false, got {log!r:.80}")
    elif low >= high:
        errors.append(f"{place}: min {low} must be below max {high}")
    elif log and low <= 0:
        errors.append(f"{place}: with log, min must be above 0, got {low}")
    else:
        return Dial(low=low, high=high, log=log)
    return None


def _number(value, place: str, kind: Kind, errors: list[str]):
    """A value of a dial; YAML reads 1e-4 as a text, which is taken for the number it means."""
    try:
        whole = kind.whole or isinstance(value, bool) or not isinstance(value, (int, str))
        found = value if whole else float(value)
        right = type(found) is (int if kind.whole else float) and kind.holds(found)
    except (ValueError, OverflowError):
        right = False
    if not right:
        errors.append(f"{place}: wanted {kind.words}, got {value!r:.80}")
    return found if right else None
