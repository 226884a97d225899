"""The registry of families, samplers and strategies."""

import sys

import pytest

from poolwise.errors import RequestError
from poolwise.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a package of two modules that each register an entry, and one that registers none."""
    folder = tmp_path / "zoo_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from poolwise.registry import Registry\nANIMALS = Registry('animal', __name__, hint='; or any plant')\n"
    )
    for module, name in (("second", "ape"), ("first", "zebra")):
        (folder / f"{module}.py").write_text(
            f"from zoo_of_this_test import ANIMALS\n\n@ANIMALS.register({name!r})\nclass Animal:\n    kind = {name!r}\n"
        )
    (folder / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import zoo_of_this_test

    yield zoo_of_this_test
    for module in [name for name in sys.modules if name.startswith("zoo_of_this_test")]:
        del sys.modules[module]


def test_entries_are_registered_and_listed_in_order(package):
    assert "zoo_of_this_test.first" not in sys.modules, "modules are imported at the first lookup"
    assert list(package.ANIMALS.all()) == ["ape", "zebra"]
    assert package.ANIMALS.get("zebra").kind == "zebra"
    assert package.ANIMALS.get("zebra").__name__ == "Animal", "the decorator returns the class unchanged"


def test_an_unknown_name_is_reported_with_the_closest_one(package):
    with pytest.raises(RequestError) as caught:
        package.ANIMALS.get("zebr")
    assert str(caught.value) == "unknown animal 'zebr'; did you mean 'zebra'? Known animals: ape, zebra; or any plant"


def test_a_listing_is_a_copy(package):
    package.ANIMALS.all().clear()
    assert len(package.ANIMALS.all()) == 2


def test_names_are_unique():
    registry = Registry("animal", "poolwise.selection.strategies")
    registry.add("ape", 1)
    with pytest.raises(AssertionError, match="are called ape"):
        registry.add("ape", 2)
