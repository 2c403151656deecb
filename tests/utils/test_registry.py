"""Where entries come from, what hides what, and what an error says."""

from __future__ import annotations

import logging
import sys
import textwrap
from pathlib import Path

import pytest

from synque_select.errors import ConfigError
from synque_select.utils.registry import Registry, check_options, is_dotted, split_options

GROUP = "synque_select_test.shapes"


class Shape:
    key = "shape"


class Square(Shape):
    key = "square"


def check(value: object) -> type[Shape]:
    if not (isinstance(value, type) and issubclass(value, Shape)):
        raise ConfigError(f"expected a Shape, got {value!r}")
    return value


@pytest.fixture
def shapes(monkeypatch) -> Registry[type[Shape]]:
    from types import ModuleType

    home = ModuleType("home_of_shapes")
    home.Shape, home.Square = Shape, Square  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "home_of_shapes", home)
    return Registry(
        "shape", GROUP, {"square": "home_of_shapes:Square"}, check, lambda cls: (cls.key,)
    )


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with entry points and a module on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def _install(name: str, code: str, **points: str) -> None:
        (tmp_path / f"{name}.py").write_text(
            "from home_of_shapes import Shape\n" + textwrap.dedent(code)
        )
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))

    yield _install
    for name in [n for n in sys.modules if n.startswith("plugged_")]:
        del sys.modules[name]


CIRCLE = """
class Circle(Shape):
    key = "circle"
"""


def test_built_in_entries_are_imported_when_asked_for(shapes):
    assert shapes.keys() == ("square",)
    assert "square" in shapes
    assert shapes.get("square") is Square
    unloaded = Registry("shape", GROUP, {"missing": "no_such_module:Name"}, check)
    assert unloaded.keys() == ("missing",)


def test_an_unknown_key_lists_what_there_is(shapes):
    with pytest.raises(ConfigError, match=r"unknown shape 'sqare': did you mean 'square'\? There"):
        shapes.get("sqare")


class TestRegister:
    def test_makes_an_entry_known(self, shapes):
        class Circle(Shape):
            key = "circle"

        shapes.register("circle", Circle)
        assert shapes.get("circle") is Circle
        assert shapes.keys() == ("circle", "square")
        with pytest.raises(ConfigError, match="There are: circle, square"):
            shapes.get("squar")

    def test_never_hides_a_built_in_by_accident(self, shapes):
        class Other(Shape):
            key = "square"

        with pytest.raises(ConfigError, match=r"'square' is taken \(built in\).*overwrite=True"):
            shapes.register("square", Other)
        assert shapes.get("square") is Square
        shapes.register("square", Other, overwrite=True)
        assert shapes.get("square") is Other
        assert not shapes.is_built_in("square")

    def test_the_same_class_again_replaces_itself_as_in_a_notebook(self, shapes):
        def cell() -> type[Shape]:
            class Circle(Shape):
                key = "circle"

            return Circle

        first, second = cell(), cell()
        shapes.register("circle", first)
        shapes.register("circle", second)
        assert shapes.get("circle") is second

        class Circle(Shape):
            key = "circle"

        with pytest.raises(ConfigError, match="taken"):
            shapes.register("circle", Circle)

    @pytest.mark.parametrize("key", ["", "a b", "a:b", "a=b", "a,b", "a/b"])
    def test_a_key_that_could_not_be_named(self, shapes, key):
        with pytest.raises(ConfigError, match="without spaces"):
            shapes.register(key, Shape)

    def test_something_else(self, shapes):
        with pytest.raises(ConfigError, match="expected a Shape, got 3"):
            shapes.register("three", 3)


class TestEntryPoints:
    def test_are_listed_without_an_import_and_loaded_by_key(self, shapes, install):
        install("plugged_good", CIRCLE, circle="plugged_good:Circle")
        assert shapes.keys() == ("circle", "square")
        assert shapes.installed_keys() == ("circle",)
        assert "circle" in shapes
        assert "plugged_good" not in sys.modules
        assert shapes.get("circle").key == "circle"
        assert shapes.origin("circle") == "plugged_good 1.2"

    def test_a_broken_one_is_one_error_by_its_key_and_hides_nothing(self, shapes, install, caplog):
        install("plugged_bad", "raise RuntimeError('no licence')\n", circle="plugged_bad:Circle")
        with pytest.raises(ConfigError) as caught:
            shapes.get("circle")
        message = str(caught.value)
        assert "shape 'circle' of the package plugged_bad 1.2 cannot be imported" in message
        assert "RuntimeError: no licence" in message
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert shapes.get("square") is Square
        assert not caplog.records
        with caplog.at_level(logging.WARNING):
            assert dict(shapes.items()) == {"square": Square}
        assert "left out: shape 'circle'" in caplog.text

    def test_a_missing_name_is_an_error_too(self, shapes, install):
        install("plugged_empty", "", circle="plugged_empty:Circle")
        with pytest.raises(ConfigError, match=r"cannot be imported.*has no attribute 'Circle'"):
            shapes.get("circle")

    def test_a_built_in_is_not_replaced(self, shapes, install, caplog):
        install("plugged_greedy", CIRCLE, square="plugged_greedy:Circle")
        assert shapes.keys() == ("square",)
        assert shapes.get("square") is Square
        assert shapes.keys() == ("square",)
        (record,) = caplog.records  # once
        assert "plugged_greedy 1.2 lists the shape 'square', which is built in" in record.message

    def test_two_packages_of_one_key(self, shapes, install):
        install("plugged_a", CIRCLE, circle="plugged_a:Circle")
        install("plugged_b", CIRCLE, circle="plugged_b:Circle")
        with pytest.raises(ConfigError, match=r"2 installed packages list it \(.*1\.2, .*1\.2\)"):
            shapes.get("circle")
        assert shapes.get("plugged_b.Circle").__module__ == "plugged_b"

    def test_another_key_than_the_class_states(self, shapes, install):
        install("plugged_other", CIRCLE, disc="plugged_other:Circle")
        with pytest.raises(ConfigError, match="states the key 'circle'; allowed is the same name"):
            shapes.get("disc")

    def test_something_else(self, shapes, install):
        install("plugged_three", "Circle = 3\n", circle="plugged_three:Circle")
        with pytest.raises(ConfigError, match=r"plugged_three 1\.2: expected a Shape, got 3"):
            shapes.get("circle")

    def test_a_package_may_register_what_it_lists(self, shapes, install):
        install("plugged_both", CIRCLE, circle="plugged_both:Circle")
        cls = shapes.get("circle")
        shapes.register("circle", cls)
        assert shapes.get("circle") is cls

        class Circle(Shape):
            key = "circle"

        fresh = Registry("shape", GROUP, {}, check)
        with pytest.raises(ConfigError, match=r"'circle' is taken \(plugged_both 1.2\)"):
            fresh.register("circle", Circle)


class TestDottedNames:
    @pytest.mark.parametrize("name", ["plugged_free.Circle", "plugged_free:Circle"])
    def test_need_no_registration(self, shapes, install, name):
        install("plugged_free", CIRCLE)
        assert shapes.get(name).key == "circle"

    def test_a_missing_module(self, shapes):
        with pytest.raises(ConfigError, match=r"the module no_such cannot be imported: ModuleNot"):
            shapes.get("no_such.Circle")

    def test_a_missing_class_names_those_that_exist(self, shapes, install):
        install("plugged_typo", CIRCLE)
        with pytest.raises(ConfigError, match="has no Cirle: did you mean 'Circle'"):
            shapes.get("plugged_typo.Cirle")

    def test_something_else(self, shapes):
        with pytest.raises(ConfigError, match=r"shape 'json\.dumps': expected a Shape"):
            shapes.get("json.dumps")

    def test_an_option_without_a_value_is_not_a_module(self, shapes):
        with pytest.raises(
            ConfigError, match="shape 'square:size': the option 'size' has no value"
        ):
            shapes.get("square:size")

    @pytest.mark.parametrize("name", ["pad", "a/b.c", "bge-small-en-v1.5", "glove.6B", ".x", "a."])
    def test_what_is_not_one(self, name):
        assert not is_dotted(name)


class TestOptions:
    def test_values_are_json_or_text(self):
        assert split_options("a:b=1:c=x:d=[1]:e=null") == (
            "a",
            {"b": 1, "c": "x", "d": [1], "e": None},
        )
        assert split_options("p.q:R:b=1") == ("p.q:R", {"b": 1})

    @pytest.mark.parametrize("text", ["a:=1", "a:b:c=1:d", "p:Q:r"])
    def test_without_a_name_or_value(self, text):
        with pytest.raises(ConfigError, match="expected name:option=value"):
            split_options(text)

    def test_unknown_and_missing(self):
        def factory(size, *, colour="red"): ...

        check_options("shape 'x'", factory, ["size", "colour"])
        with pytest.raises(ConfigError, match="shape 'x' needs size=…"):
            check_options("shape 'x'", factory, ["colour"])
        with pytest.raises(ConfigError, match="no option 'color': did you mean 'colour'"):
            check_options("shape 'x'", factory, ["size", "color"])
        check_options("shape 'x'", lambda **options: None, ["anything"])
        with pytest.raises(ConfigError, match="no option 'size': it has no options"):
            check_options("shape 'x'", lambda: None, ["size"])


def test_the_module_of_an_entry_may_be_nested(shapes, install, tmp_path: Path):
    package = tmp_path / "plugged_nested"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("from home_of_shapes import Shape\n" + CIRCLE)
    assert shapes.get("plugged_nested.deep.Circle") is shapes.get("plugged_nested.deep:Circle")
