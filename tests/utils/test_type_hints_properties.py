"""The types of JSON: what JSON gives back is of its type, and nothing else is."""

from __future__ import annotations

import json
from types import UnionType
from typing import Any, Literal

from hypothesis import strategies as st
from properties import holds

from toughen.utils.type_hints import first_mismatch, is_json, matches

TEXT = st.text(max_size=5)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False) | st.integers(),
    bool: st.booleans(),
    str: TEXT,
    None: st.none(),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    Literal[1, 0]: st.sampled_from([1, 0]),
}


def _of(kind: Any, *parts: Any) -> Any:
    return kind[parts]


@st.composite
def typed(draw: st.DrawFn, deep: int = 2) -> tuple[Any, Any]:
    """A type and a value of it, as Python has it before JSON."""
    kind = draw(st.sampled_from(["simple", "list", "tuple", "dict", "either"] if deep else ["simple"]))
    if kind == "simple":
        hint = draw(st.sampled_from(list(SIMPLE)))
        return (type(None) if hint is None else hint), draw(SIMPLE[hint])
    hint, value = draw(typed(deep - 1))
    if kind == "list":
        return _of(list, hint), [value] * draw(st.integers(0, 2))
    if kind == "dict":
        return _of(dict, str, hint), {draw(TEXT): value}
    other, second = draw(typed(deep - 1))
    if kind == "tuple":
        return _of(tuple, hint, other), (value, second)
    return hint | other if draw(st.booleans()) else other | hint, value


def is_of(value: Any, hint: Any) -> bool:
    """The same, told by how Python writes the type."""
    text = str(hint)
    if hint in (int, str, bool, type(None)):
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float)
    if isinstance(hint, UnionType) or text.startswith(("typing.Union", "typing.Optional")):
        return any(is_of(value, each) for each in hint.__args__)
    if text.startswith("typing.Literal"):
        return any(repr(value) == repr(each) for each in hint.__args__)
    if text.startswith("list"):
        return type(value) is list and all(is_of(each, hint.__args__[0]) for each in value)
    if text.startswith("tuple"):
        return type(value) is list and len(value) == 2 and all(map(is_of, value, hint.__args__))
    if text.startswith("dict"):
        return type(value) is dict and all(is_of(each, hint.__args__[1]) for each in value.values())
    raise AssertionError(f"no rule for {text}")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NO_JSON = st.sampled_from([(1,), {1}, b"x", 1j, {1: 2}, {None: 1}, [(1,)], {"a": {True: 1}}, Ellipsis])


@holds(examples=100, drawn=typed())
def test_what_json_gives_back_is_of_its_type(drawn: tuple[Any, Any]) -> None:
    hint, value = drawn
    assert matches(json.loads(json.dumps(value)), hint)


@holds(examples=200, drawn=typed(), other=ANY)
def test_any_value_is_of_a_type_or_not(drawn: tuple[Any, Any], other: Any) -> None:
    assert matches(other, drawn[0]) == is_of(other, drawn[0])


@holds(fields=st.dictionaries(TEXT, typed(), min_size=1, max_size=4), more=st.dictionaries(TEXT, ANY, max_size=2))
def test_the_first_field_that_is_wrong_is_named(fields: dict[str, tuple[Any, Any]], more: dict[str, Any]) -> None:
    hints = {name: hint for name, (hint, _) in fields.items()}
    there = json.loads(json.dumps({name: value for name, (_, value) in fields.items()}))
    assert first_mismatch(there, hints) is None
    for name in fields:
        rest = {each: value for each, value in there.items() if each != name}
        assert first_mismatch(rest, hints) == name
    unknown = [name for name in more if name not in hints]
    if unknown:
        assert first_mismatch({**more, **there}, hints) == unknown[0]
    assert first_mismatch(list(there), hints) == next(iter(hints))


@holds(examples=200, value=ANY | NO_JSON | st.lists(ANY | NO_JSON, max_size=2))
def test_a_value_is_json_where_json_gives_it_back(value: Any) -> None:
    try:
        same = repr(json.loads(json.dumps(value))) == repr(value)
    except TypeError:
        same = False
    assert is_json(value) == same


def test_true_is_not_one_of_the_numbers() -> None:
    assert matches(1, Literal[1, 0]) and not matches(True, Literal[1, 0]) and not matches(1.0, Literal[1, 0])
