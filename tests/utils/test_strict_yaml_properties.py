"""Strict YAML against PyYAML: the same value, or a refusal with a reason that PyYAML or a count of keys confirms."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from properties import holds

from toughen.utils import strict_yaml

FLOAT = r"[-+]?[0-9][0-9_]*(\.[0-9_]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
FLOAT += r"|\.[0-9_]+([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*"


class Judge(yaml.SafeLoader):
    """PyYAML's own, with numbers as jsonargparse takes them (1e-3 is one), and dates as text."""


class FastJudge(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same with libyaml's parser, which reads a few texts in another way."""


class Writer(yaml.SafeDumper):
    """Puts what Judge takes for a number in quotes."""


for each in (Judge, FastJudge, Writer):
    each.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in pairs if not tag.endswith((":timestamp", ":float"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    each.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"({FLOAT})\\Z"), list("-+0123456789."))

NAMES = st.text("abcdefgh_-.:/ 0123456789~é", min_size=1, max_size=12)
PLAIN = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | NAMES
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
PARTS = ["a", "b", "1", "1.0", "true", "yes", "~", "null", ": ", ":", " ", "\n", "\n  ", "- ", "[", "]", "{", "}", ", "]
PARTS += ["&x ", "*x", "<<: ", "!!int ", "!!str ", "!!set ", "!!float ", "'", '"', "|", ">", "#", "? ", "\t", "._"]
PARTS += ["0x", "1e9", ".inf", "2026-01-01", "1:30", "=", "%", "@", "\\", "\u2028", "\x00", "\ud7ff", "---\n", "..."]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, types and NaN included."""
    return repr(one) == repr(other)


def judged(text: str) -> list[Any]:
    """What PyYAML's two parsers make of a text; fewer where one refuses it."""
    values = []
    for judge in (Judge, FastJudge):
        with suppress(yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError):
            values.append(yaml.load(text, Loader=judge))
    return values


def says_two_things(text: str) -> bool:
    return twice(yaml.compose(text, Loader=yaml.SafeLoader))


def twice(node: yaml.Node | None, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a key is written twice in one mapping, means the same as another, or a value holds itself."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return False
    if id(node) in seen:
        return True
    seen |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return any(twice(each, seen) for each in node.value)
    texts = [str(key.value) for key, _ in node.value]
    values = [
        key.value if key.tag == "tag:yaml.org,2002:value" else Judge("").construct_object(key)  # `=` is a text as a key
        for key, _ in node.value
        if key.tag != "tag:yaml.org,2002:merge"
    ]
    kept = {value for value in values if isinstance(value, Hashable)}
    return len(set(texts)) < len(texts) or len(kept) < len(values) or any(twice(value, seen) for _, value in node.value)


@holds(examples=60, value=VALUES, flow=st.booleans(), plain=st.booleans())
def test_what_pyyaml_writes_is_read_back(value: Any, flow: bool, plain: bool) -> None:
    text = yaml.dump(value, Dumper=Writer, default_flow_style=flow, allow_unicode=plain, sort_keys=False)
    assert same(strict_yaml.read(text, "it"), value)


@holds(examples=60, value=st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), indent=st.sampled_from([None, 2]))
def test_json_is_read_as_json(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    if "Infinity" not in text:  # a name to YAML
        assert same(strict_yaml.read(text, "it"), json.loads(text))
        strict_yaml.check_value(text, "it")


TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join) | st.text(max_size=12)


@holds(examples=200, text=TEXTS)
def test_any_text_is_read_as_pyyaml_reads_it_or_refused(text: str) -> None:
    expected = judged(text)
    try:
        found = strict_yaml.read(text, "it")
    except ValueError as error:
        assert str(error).startswith("it ") and len(str(error)) < 300
        assert len(expected) < 2 or says_two_things(text)
        return
    assert not says_two_things(text)
    # a mapping of names without values is a text to jsonargparse: `{depth}` is one on a command line
    assert any(same(found, each) for each in expected) or (
        found == text and any(isinstance(each, dict) and not any(each.values()) for each in expected)
    )


@holds(examples=200, text=TEXTS)
def test_an_options_value_is_refused_only_where_it_is_yaml_that_says_two_things(text: str) -> None:
    expected = judged(text)
    try:
        strict_yaml.check_value(text, "--out")
    except ValueError as error:
        assert str(error).startswith("--out ")
        assert len(expected) < 2 or says_two_things(text)


@holds(names=st.lists(NAMES, min_size=1, max_size=6), again=st.integers(0, 5), deep=st.integers(0, 3))
def test_a_key_that_is_there_twice_is_named(names: list[str], again: int, deep: int) -> None:
    unique = list(dict.fromkeys(names))
    name = unique[again % len(unique)]
    inner = ", ".join(f"{json.dumps(each, ensure_ascii=False)}: 1" for each in [*unique, name])
    text = "{a: " * deep + "{" + inner + "}" + "}" * deep
    try:
        strict_yaml.read(text, "it")
    except ValueError as error:
        assert str(error) == f"it sets {name!r} twice (line 1): keep one of them"
        return
    raise AssertionError(text)


# ---- what random input found


@pytest.mark.parametrize("text", ["~: 1\nnull: 2", "{1: a, 1.0: b}", "{yes: a, 1: b}", "{x: {0x1: a, 1: b}}"])
def test_keys_that_mean_the_same_are_one_key_twice(text: str) -> None:
    with pytest.raises(ValueError, match=r"it sets '\S+' twice"):
        strict_yaml.read(text, "it")


@pytest.mark.parametrize("text", ["1:", "? ", "._", "~:"])
def test_an_option_may_have_a_text_that_yaml_makes_nothing_of(text: str) -> None:
    strict_yaml.check_value(text, "--out")


def test_a_key_without_a_value_stays_a_text() -> None:
    assert [strict_yaml.read(text, "it") for text in ("a:", "1:", "1e9:")] == ["a:", "1:", "1e9:"]


@pytest.mark.parametrize("text", ["!!set : ", "{!!set }", "!!int x: 1"])
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^it "):
        strict_yaml.read(text, "it")
