"""The sandbox in which chat templates run: no way out of it, and no way to fill the machine from within.

A template is code that came with a checkpoint. Jinja's immutable sandbox keeps it from reaching Python; here each
rendering has a budget besides: steps (turns of loops weighed by their bodies, calls, operations, characters made), and
the largest value that it may make. Both grow with the conversation, so that no honest template comes near them. What is
too large is refused before it is made.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from contextvars import ContextVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, generate_lorem_ipsum
from jinja2.visitor import NodeTransformer

STEPS, STEPS_PER_CHARACTER = 200_000, 20  # of a rendering
LARGEST, LARGEST_PER_CHARACTER = 1_000_000, 16  # characters or entries of one value
LARGEST_NUMBER = 4096  # bytes
CHARACTERS_PER_STEP = 64
NODES_PER_STEP = 16  # of a template's syntax: what one turn of a loop costs
_CONTAINERS = (list, tuple, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items()), Namespace)


class TooMuchError(Exception):
    """A template asks for more steps, or a larger value, than its conversation can need."""


class Budget:
    """What one rendering may still do.

    Args:
        characters: of the conversation.
    """

    def __init__(self, characters: int):
        self.steps = STEPS + STEPS_PER_CHARACTER * characters
        self.largest = LARGEST + LARGEST_PER_CHARACTER * characters

    def spend(self, steps: float) -> None:
        """Counts steps down; TooMuchError when there are none left."""
        self.steps -= steps
        if self.steps < 0:
            raise TooMuchError("it takes too many steps")

    def make(self, size: float) -> None:
        """Counts the making of a value of `size` characters or entries; TooMuchError for one that is too large."""
        if size > self.largest:
            raise TooMuchError(f"it makes a value of {size:,.0f} characters or entries")
        self.spend(1 + size / CHARACTERS_PER_STEP)

    def walk(self, value) -> int:
        """Counts all that a value holds, each place as often as it is shown: its characters, and one for each entry."""
        stack, size = [value], 0
        while stack:
            item = stack.pop()
            if isinstance(item, Namespace):
                item = item._Namespace__attrs
            if isinstance(item, Mapping):
                stack += [*item.keys(), *item.values()]
            elif isinstance(item, _CONTAINERS):
                stack += item
            size += 1 + (len(item) if isinstance(item, (str, bytes)) else 0)
            if size > self.largest:
                raise TooMuchError("it makes a value that is too large when it is written out")
            self.spend(1)
        self.spend(size / CHARACTERS_PER_STEP)
        return size


_budget: ContextVar[Budget] = ContextVar("chat_template_budget")


@contextlib.contextmanager
def budgeted(characters: int) -> Iterator[None]:
    """A budget for all that templates do inside."""
    token = _budget.set(Budget(characters))
    try:
        yield
    finally:
        _budget.reset(token)


def _size(value) -> int:
    return len(value) if isinstance(value, Sized) and not isinstance(value, jinja2.Undefined) else 1


def _whole(value) -> int:
    """An int as a width or a count; 0 for what is none."""
    return abs(value) if isinstance(value, int) else 0


# ---- what is made, before it is made -------------------------------------------------------------------------------


def _product_size(left, right) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return _number_size(left.bit_length() + right.bit_length())
    if isinstance(left, int) or isinstance(right, int):
        count, value = (left, right) if isinstance(left, int) else (right, left)
        return max(count, 0) * _size(value) if isinstance(value, (str, bytes, list, tuple)) else 1
    return 1


def _format_size(form: str, arguments) -> int:
    """Of a %-format or a str.format: the widths that it names, and what it shows, as often as it may."""
    widths = sum(int(number[:12]) for number in re.findall(r"\d{3,}", form))
    if "*" in form or re.search(r"\{[^{}]*\{", form):  # widths among the arguments
        widths += sum(map(_whole, arguments))
    shown = max(map(_budget.get().walk, arguments), default=0)
    return len(form) + widths + (form.count("%") + form.count("{")) * shown


def _replaced_size(text: str, old="", new="", count=None) -> int:
    old, new = str(old), str(new)
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def _joined_size(separator, parts) -> int:
    return sum(_budget.get().walk(part) + _size(separator) for part in parts)


def _power_size(left, right) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return _number_size(left.bit_length() * max(right, 0))
    return 1


def _number_size(bits: int) -> int:
    if bits > 8 * LARGEST_NUMBER:
        raise TooMuchError(f"it makes a number of {bits // 8:,} bytes")
    return 1


_OPERATORS: dict[str, Callable] = {
    "+": lambda left, right: _size(left) + _size(right),
    "*": _product_size,
    "**": _power_size,
    "%": lambda left, right: (
        _format_size(left, right if isinstance(right, tuple) else (right,)) if isinstance(left, str) else 1
    ),
}
_WIDENING = ("center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes")  # methods whose numbers are sizes


def _check_method(owner, name: str, arguments: list, named: dict) -> None:
    """What a method of a plain value would make; the parts that `join` is given are kept, since they may come once."""
    budget = _budget.get()
    if name == "replace" and isinstance(owner, str):
        budget.make(_replaced_size(owner, *arguments, **named))
    elif name == "join" and arguments:
        arguments[0] = list(arguments[0])
        budget.make(_joined_size(owner, arguments[0]))
    elif name in _WIDENING:
        factor = _size(owner) if name == "expandtabs" else 1
        budget.make(_size(owner) + factor * sum(map(_whole, [*arguments, *named.values()])))
    elif name == "translate" and arguments and isinstance(arguments[0], Mapping):
        budget.make(_size(owner) * (1 + max(map(_size, arguments[0].values()), default=0)))
    else:
        budget.make(_size(owner))


# ---- filters -------------------------------------------------------------------------------------------------------

# Filters that look at no entry of a container, or at one after another as a loop asks for them.
_SHALLOW = frozenset(
    (
        *("length", "count", "first", "last", "default", "d", "list", "items", "map", "select", "reject"),
        *("selectattr", "rejectattr", "batch", "slice", "reverse", "random", "attr", "safe"),
    )
)
_MOST_PLACES = 1000  # of round(), and of an indentation of JSON


def _bounded_filter(name: str, function: Callable) -> Callable:
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # its context or environment

    @functools.wraps(function)
    def bounded(*arguments, **named):
        budget, arguments = _budget.get(), list(arguments)
        value = arguments[skipped] if len(arguments) > skipped else None
        options = [*arguments[skipped + 1 :], *named.values()]
        numbers = sum(map(_whole, options))
        if name in ("round", "tojson") and (numbers > _MOST_PLACES or any(_size(x) > _MOST_PLACES for x in options)):
            raise TooMuchError(f"it asks {name} for {numbers:,} places")
        size = budget.walk(value) if name not in _SHALLOW else _size(value)
        texts = sum(len(option) for option in options if isinstance(option, str))
        if name == "join":
            arguments[skipped] = value = list(value)
            size = sum(map(budget.walk, value)) + len(value) * texts
        elif name == "format" and isinstance(value, str):
            size = _format_size(value, options)
        elif name == "replace":
            size = _replaced_size(str(value), *options)
        elif name in ("indent", "wordwrap"):
            size += str(value).count("\n") * numbers + (size + 1) * texts
        elif name == "tojson":
            size *= 1 + numbers + texts
        else:
            size += numbers
        budget.make(size)
        result = function(*arguments, **named)
        budget.make(_size(result))
        return result

    return bounded


def _bounded_test(function: Callable) -> Callable:
    @functools.wraps(function)
    def bounded(*arguments, **named):
        if any(isinstance(argument, _CONTAINERS) for argument in arguments):
            _budget.get().walk(list(arguments))
        return function(*arguments, **named)

    return bounded


# ---- the environment -----------------------------------------------------------------------------------------------


def _call(name: str, *arguments) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


def _weight(body) -> nodes.Const:
    """What one pass of a body costs, in steps."""
    return nodes.Const(1 + sum(1 for node in body for _ in node.find_all(nodes.Node)) // NODES_PER_STEP)


class _Counting(NodeTransformer):
    """Puts the counting calls into a template's syntax tree: jinja compiles loops, `~` and slices to plain Python."""

    def visit_For(self, node):
        weight = _weight(node.body)
        self.generic_visit(node)
        node.iter = _call("counted", node.iter, weight)
        return node

    def visit_Macro(self, node):
        spend = nodes.ExprStmt(_call("spend", _weight(node.body))).set_lineno(node.lineno)
        self.generic_visit(node)
        node.body.insert(0, spend)
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node):
        self.generic_visit(node)
        return _call("concatenated", *node.nodes).set_lineno(node.lineno)

    def visit_Getitem(self, node):
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return _call("sliced", node.node, *ends).set_lineno(node.lineno)

    def _measured(self, node):
        self.generic_visit(node)
        if getattr(node, "ctx", "load") == "store" or all(isinstance(x, nodes.Const) for x in node.iter_child_nodes()):
            return node
        return _call("measured", node).set_lineno(node.lineno)

    visit_List = visit_Tuple = visit_Dict = _measured

    def visit_Compare(self, node):
        self.generic_visit(node)
        if not isinstance(node.expr, nodes.Const):
            node.expr = _call("measured", node.expr).set_lineno(node.lineno)
        for operand in node.ops:
            if operand.op in ("in", "notin"):
                operand.expr = _call("searched", operand.expr).set_lineno(node.lineno)
        return node


class Generation(Extension):
    """`{% generation %}` marks what an assistant wrote; it changes nothing of the text."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own interface)

    def parse(self, parser):
        """The body, as if the tag were not there."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with a budget; render inside of `budgeted`."""

    intercepted_binops = frozenset(_OPERATORS)

    def __init__(self):
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], finalize=self.measured
        )
        self.filters = {name: _bounded_filter(name, function) for name, function in self.filters.items()}
        self.tests = {name: _bounded_test(function) for name, function in self.tests.items()}
        self.globals["lipsum"] = _lorem_ipsum

    def add_filter(self, name: str, function: Callable) -> None:
        """A filter of ours, under the same bounds."""
        self.filters[name] = _bounded_filter(name, function)

    def _generate(self, source, *arguments, **named):
        return super()._generate(_Counting().visit(source), *arguments, **named)

    def call_binop(self, context, operator, left, right):
        """An operation whose result may be larger than its operands."""
        _budget.get().make(_OPERATORS[operator](left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context, __object, *arguments, **named):
        """A call of anything."""
        owner, arguments = getattr(__object, "__self__", None), list(arguments)
        if owner is __self:  # one of the counting calls
            return __object(*arguments)
        if isinstance(__object, LoopContext) and arguments:  # one more level of a recursive loop
            arguments[0] = __self.counted(arguments[0], 1)
        if isinstance(owner, (str, bytes, int, float, list, tuple, dict)):
            _check_method(owner, getattr(__object, "__name__", ""), arguments, named)
        result = super().call(__context, __object, *arguments, **named)
        _budget.get().make(_size(result))
        return result

    def wrap_str_format(self, value):
        """str.format, whose widths are sizes."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def bounded(*arguments, **named):
            _budget.get().make(_format_size(value.__self__, [*arguments, *named.values()]))
            return wrapped(*arguments, **named)

        return bounded

    # What `_Counting` puts into templates, and jinja's own concatenation of pieces.

    def concat(self, pieces) -> str:
        """Pieces of output as one text."""
        pieces = list(pieces)
        _budget.get().make(sum(map(len, pieces)))
        return "".join(pieces)

    def spend(self, steps: int) -> None:
        """Counts steps."""
        _budget.get().spend(steps)

    def counted(self, values, weight: int):
        """What a loop goes over; each turn costs `weight` steps."""
        budget = _budget.get()
        if isinstance(values, Sized):
            budget.spend(len(values) * weight)
            return values
        return self._each_counted(values, weight, budget)

    @staticmethod
    def _each_counted(values, weight, budget):
        for value in values:
            budget.spend(weight)
            yield value

    def concatenated(self, *parts) -> str:
        """`~`."""
        _budget.get().make(sum(map(_budget.get().walk, parts)))
        return "".join(map(str, parts))

    def sliced(self, value, start, stop, step):
        """`value[start:stop:step]`."""
        _budget.get().make(_size(value))
        return value[slice(start, stop, step)]

    def searched(self, value):
        """What `in` looks through."""
        _budget.get().make(_size(value))
        return value

    def measured(self, value):
        """A value that will be written out or compared, counted with all that it holds."""
        if isinstance(value, _CONTAINERS):
            _budget.get().walk(value)
        return value


def _lorem_ipsum(n=5, html=True, min=20, max=100):
    """Jinja's, of a bounded length."""
    _budget.get().make(8 * _whole(n) * (_whole(max) + _whole(min)))
    return generate_lorem_ipsum(n, html, min, max)
