"""Functions as JSON schemas, against transformers' get_json_schema; what no schema can say is refused by name."""

import enum
from typing import Any, Literal, Optional, Union

import pytest

from tfxformer.text.chat.function_schemas import function_schema


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


def plain(town: str, days: int = 3) -> dict:
    """The weather of a town.

    Args:
        town: its name, as
            maps have it
        days: how many: 1 to 9

    Returns:
        Degrees by day.
    """


def every_hint(
    a: float,
    b: bool,
    c: list,
    d: list[int],
    e: dict[str, float],
    f: tuple[int, str],
    g: int | str,
    h: str | None,
    i: Optional[list[str]],  # noqa: UP045
    j: Union[int, list[int]],  # noqa: UP007
    k: Literal["x", "y"],
    l: Literal[1, "one"],
    m: Unit,
    n: Any,
    o: dict,
    p: "int" = 1,
    q: Unit | None = None,
) -> list[str]:
    """Many arguments,
    of which this is a second line.

    And a paragraph.

    Args:
        a (float): one
        b: two (choices: [true])
        c (list, optional):
            three
        d: four: with a colon
        e: five
        f: six
        g: seven

        h: eight
        i: nine
            note: this goes on
        j: ten
        k: eleven
        l: twelve
        m: thirteen
        n: fourteen
        o: fifteen
        p: sixteen
        q: seventeen (Choices: ["celsius", " kelvin "])

    Raises:
        ValueError: never.

    Returns:
        Something.
    """


def nothing() -> None:
    """Does nothing."""


def opaque(x: int) -> "pytest.MonkeyPatch":
    """A result that JSON has no word for.

    Args:
        x: a number
    """


class Town:
    def method(self, days: int):
        """Of a town.

        Args:
            days: how many
        """


@pytest.mark.reference
@pytest.mark.parametrize("function", [plain, every_hint, nothing, opaque, Town().method, Town.method])
def test_schemas_are_those_of_transformers(function):
    from transformers.utils import get_json_schema

    assert function_schema(function) == get_json_schema(function)


def test_a_schema():
    assert function_schema(plain) == {
        "type": "function",
        "function": {
            "name": "plain",
            "description": "The weather of a town.",
            "parameters": {
                "type": "object",
                "properties": {
                    "town": {"type": "string", "description": "its name, as maps have it"},
                    "days": {"type": "integer", "description": "how many: 1 to 9"},
                },
                "required": ["town"],
            },
            "return": {"type": "object", "description": "Degrees by day."},
        },
    }


def undocumented(x: int):
    pass


def half_documented(x: int, y: int):
    """Adds.

    Args:
        x: one
    """


def unhinted(x):
    """Adds.

    Args:
        x: one
    """


def strange_hint(x: pytest.MonkeyPatch):
    """Adds.

    Args:
        x: one
    """


def missing_hint(x: "Nowhere"):  # noqa: F821
    """Adds.

    Args:
        x: one
    """


def wrong_choices(x: str):
    """Adds.

    Args:
        x: one (choices: [a, b])
    """


def keywords(**x: int):
    """Adds.

    Args:
        x: one
    """


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (undocumented, ValueError, r"undocumented\(\) cannot be shown as a tool: it has no docstring"),
        (half_documented, ValueError, r"says nothing of the argument 'y' under \"Args:\""),
        (unhinted, TypeError, "its argument 'x' has no type hint"),
        (strange_hint, TypeError, r"strange_hint\(x\) .*JSON has no type for the hint <class .*MonkeyPatch"),
        (missing_hint, TypeError, "name 'Nowhere' is not defined"),
        (wrong_choices, ValueError, r"choices of 'x' are '\[a, b\]', not a list of JSON"),
        (keywords, TypeError, r"it takes \*\*x: int, and a model can give arguments by their names only"),
        (Town, TypeError, "it is no function"),
    ],
)
def test_what_no_schema_can_say_is_refused(function, error, message):
    with pytest.raises(error, match=message):
        function_schema(function)
