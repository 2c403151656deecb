"""Checked reading of YAML files: configs, which a person or another program wrote."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError, SynqueError
from synque_select.utils.json_files import MAX_DEPTH
from synque_select.utils.text_files import read_text, utf16_hint
from synque_select.utils.unicode_forms import normalized

if TYPE_CHECKING:
    import yaml

__all__ = ["check_yaml", "read_yaml_file"]

_MAX_NODES = 1_000_000
_PROBLEMS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def read_yaml_file(path: str | Path, *, error: type[SynqueError] = ConfigError) -> object:
    """Read a YAML file; see `check_yaml` for what is refused.

    Args:
        path: The file.
        error: What to raise.

    Raises:
        SynqueError: In the given type: the file cannot be read, or is not such a YAML.
    """
    import yaml

    text = read_text(path, error=error)
    check_yaml(text, str(path), error=error)
    try:
        return yaml.load(text, Loader=_loader())
    # beside its own errors, those that a tag without a fitting value brings about: "!!int " is an
    # IndexError, 2026-02-31 a ValueError, 1:1:…:1.5 of 400 parts an OverflowError
    except (yaml.YAMLError, *_PROBLEMS) as problem:
        raise error(_message(problem, str(path))) from problem


def check_yaml(text: str, where: str, *, error: type[SynqueError] = ConfigError) -> None:
    r"""Refuse YAML that is broken, or from which a parser would silently drop a part.

    Args:
        text: The YAML.
        where: What it is, for the message: the path of a file.
        error: What to raise.

    Raises:
        SynqueError: In the given type: the text is not YAML, has a key twice in one mapping (of
            which a parser keeps the last), holds more than one document, nests more than 300
            levels deep, or expands to more than a million values.

    Example:
        >>> check_yaml("a: 1\nb: 2\na: 3", "fit.yaml")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: fit.yaml, line 3: the key 'a' is already on line 1; ...
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader), where, error)
    except yaml.YAMLError as problem:
        hint = utf16_hint(text[:64].encode())
        raise error(_message(problem, where) + hint) from problem
    except RecursionError as problem:  # of the parser that is used where libyaml is missing
        raise error(f"{where}: {_too_deep()}") from problem


class _Open:
    """A mapping or sequence whose end has not been read yet."""

    def __init__(self, anchor: str | None, *, is_mapping: bool) -> None:
        self.anchor = anchor
        self.is_mapping = is_mapping
        self.n_nodes = 1
        self.n_parts = 0
        self.lines: dict[object, int] = {}


def _check_events(events: Iterator[yaml.Event], where: str, error: type[SynqueError]) -> None:
    # events and not values: a parser that builds values calls itself at each level, and aliases of
    # aliases take no memory until something walks them
    import yaml

    stack = [_Open(None, is_mapping=False)]
    sizes: dict[str, int] = {}
    scalars: dict[str, object] = {}
    n_documents = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            n_documents += 1
            if n_documents > 1:
                raise error(f"{where}, line {line}: a second document starts here; allowed is one")
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Open(event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent)))
            if len(stack) > MAX_DEPTH:
                raise error(f"{where}, line {line}: {_too_deep()}")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            _add(stack[-1], closed.anchor, closed.n_nodes, sizes)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise error(
                    f"{where}, line {line}: *{event.anchor} has no anchor that ends before it"
                )
            if event.anchor in scalars:
                _check_key(stack[-1], scalars[event.anchor], line, where, error)
            _add(stack[-1], None, sizes[event.anchor], sizes)
        elif isinstance(event, yaml.ScalarEvent):
            value = _key_value(event) if event.anchor or _is_key(stack[-1]) else None
            _check_key(stack[-1], value, line, where, error)
            if event.anchor:
                scalars[event.anchor] = value
            _add(stack[-1], event.anchor, 1, sizes)
        if stack[-1].n_nodes > _MAX_NODES:
            raise error(
                f"{where}, line {line}: more than {_MAX_NODES:,} values, with aliases expanded"
            )


def _add(outer: _Open, anchor: str | None, n_nodes: int, sizes: dict[str, int]) -> None:
    outer.n_parts += 1
    outer.n_nodes += n_nodes
    if anchor:
        sizes[anchor] = n_nodes


@cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a loader that refuses whole numbers that Python does not print."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # without stubs it is Any
        pass

    def whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
        value: int = loader.construct_yaml_int(node)
        try:
            str(value)
        except ValueError:
            raise ValueError("a whole number of more than 4,300 digits") from None
        return value

    Loader.add_constructor("tag:yaml.org,2002:int", whole)
    return Loader


@cache
def _resolver() -> yaml.resolver.Resolver:
    import yaml

    return yaml.resolver.Resolver()


def _is_key(outer: _Open) -> bool:
    return outer.is_mapping and outer.n_parts % 2 == 0


def _key_value(event: yaml.ScalarEvent) -> object:
    """Return what a scalar is as a key: true and yes are one, and so are 1 and 1.0."""
    import yaml

    text = normalized(event.value)
    tag = _resolver().resolve(yaml.ScalarNode, text, event.implicit)
    if event.tag is not None or not event.implicit[0] or tag == "tag:yaml.org,2002:str":
        return text
    try:
        value: object = yaml.SafeLoader("").construct_object(yaml.ScalarNode(tag, text))
    except (yaml.YAMLError, *_PROBLEMS):  # the merge key, an impossible date
        return text
    return value


def _check_key(outer: _Open, key: object, line: int, where: str, error: type[SynqueError]) -> None:
    if not _is_key(outer):
        return
    if key in outer.lines:
        raise error(
            f"{where}, line {line}: the key {key!r} is already on line {outer.lines[key]}; "
            + (
                "merge several mappings by <<: [*a, *b]"
                if key == "<<"
                else "a key may occur once: rename or remove one of the two"
            )
        )
    outer.lines[key] = line


def _too_deep() -> str:
    return f"invalid YAML: nested too deeply; allowed are {MAX_DEPTH} levels"


def _message(problem: Exception, where: str) -> str:
    import yaml

    if not isinstance(problem, yaml.MarkedYAMLError):
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        if not isinstance(problem, yaml.YAMLError):
            reason = f"a value does not fit its tag, or is not a possible date or number: {reason}"
        return f"{where}: not YAML: {reason}"
    mark = problem.problem_mark or problem.context_mark
    place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return f"{where}{place}: not YAML: {problem.problem or problem.context}"
