"""Dependencies: few packages, each with a lower bound and a listed license."""

import ast
import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r'^  "([A-Za-z0-9_.-]+)([^"]*)",(?: *#.*)?$', re.MULTILINE)


@pytest.fixture
def licences():
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runtime():
    """Return name -> version range from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    return dict(REQUIREMENT.findall(text[text.index("dependencies = [") : text.index("[project.optional")]))


def extras():
    """Return the packages of the extras, except those for tests."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text[text.index("[project.optional-dependencies]") : text.index("test = [")]
    return set(re.findall(r'"([A-Za-z0-9_]+)', section))


def test_dependencies_are_few_and_have_a_lower_bound():
    assert 5 < len(runtime()) <= 15
    for name, bounds in runtime().items():
        assert ">=" in bounds, name


def test_upper_bounds_have_a_reason():
    """A bound without a reason keeps users from the current release, as one on filelock once did."""
    text = (ROOT / "pyproject.toml").read_text()
    lines = text[text.index("\ndependencies = [") : text.index("[project.scripts]")].splitlines()
    bounded = [line for line in lines if re.search(r'"[A-Za-z0-9_.-]+[^";]*<', line)]
    assert all("#" in line for line in bounded), bounded


def test_every_dependency_has_a_listed_license(licences):
    page = licences.PAGE.read_text()
    for name in runtime():
        assert f"| {name} | always |" in page
        assert licences.licence(name) != "not said"
    for extra in metadata.metadata("poolwise").get_all("Provides-Extra"):
        assert extra == "test" or f"`poolwise[{extra}]`" in page


def test_every_import_is_a_dependency():
    names = {"markupsafe", "PIL", "poolwise", "pydantic_core"} | set(runtime()) | extras()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in (module.split(".")[0] for module in modules):
                assert name in names or name in sys.stdlib_module_names or name == "mpl_toolkits", f"{path}: {name}"


def test_releases_come_with_a_bill_of_materials():
    makefile = (ROOT / "Makefile").read_text()
    assert "cyclonedx-py environment" in makefile
    assert "pip-audit" in makefile
    assert "Reporting" in (ROOT / "SECURITY.md").read_text()
