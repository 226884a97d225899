"""Architecture: import order, file length, and light imports."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import poolwise

ROOT = Path(poolwise.__file__).parent
# from the bottom up; within one layer, a package may import those before it
LAYERS = [
    ["errors", "rng", "process", "progress", "sanitize", "registry"],
    ["config", "settings"],
    ["spaces", "statistics", "storage", "datasets"],
    ["models"],
    ["training"],
    ["experiment", "constraints", "parallelism"],
    ["supernets", "rankings", "selection"],
    ["exports", "reports", "pipeline"],
    ["benchmarks"],
    ["api", "cli"],
]
LAYER = {package: (level, place) for level, packages in enumerate(LAYERS) for place, package in enumerate(packages)}


class WithoutTypes(ast.NodeTransformer):
    """Removes imports for type checkers."""

    def visit_If(self, node):
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports(path: Path) -> set[str]:
    """Return the packages of poolwise that a file imports at run time."""
    packages = set()
    for node in ast.walk(WithoutTypes().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poolwise":
            parts = node.module.split(".")
            packages |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return packages - {"__version__"}


def test_imports_run_downwards():
    for path in ROOT.rglob("*.py"):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        for other in imports(path) - {package}:
            assert LAYER[other] < LAYER[package], (
                f"{path.name} in {package} imports {other}, which is not in a lower layer"
            )


def modules() -> dict[str, Path]:
    """Return the file of every module by its dotted name."""
    files = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported_modules(source: str, known: set[str]) -> set[str]:
    """Return modules of ``known`` that a source imports, also within functions, except for type checkers."""
    modules, nodes = set(), [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= names & known
            modules |= {node.module} & known if names - known else set()
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names} & known
        nodes += ast.iter_child_nodes(node)
    return modules


def test_there_are_no_import_cycles():
    files = modules()
    graph = {name: imported_modules(path.read_text(), set(files)) - {name} for name, path in files.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(f"import cycle: {' <- '.join(error.args[1])}") from None


def test_imports_in_functions_are_included_and_type_checking_imports_are_not():
    known = {"poolwise.a", "poolwise.a.b", "poolwise.c", "poolwise.d"}
    source = """
if TYPE_CHECKING:
    from poolwise.d import D
from poolwise.a import b, other
def function():
    import poolwise.c
"""
    assert imported_modules(source, known) == {"poolwise.a", "poolwise.a.b", "poolwise.c"}


def test_assignment_and_samplers_do_not_import_networks():
    samplers = list((ROOT / "supernets/samplers").glob("*.py"))
    assert len(samplers) >= 3
    for path in [ROOT / "supernets/assignment.py", *samplers]:
        assert not imports(path) & {"models", "training", "experiment"}
        assert "import torch" not in path.read_text()


def test_strategies_do_not_import_networks():
    for path in (ROOT / "selection/strategies").glob("*.py"):
        assert imports(path) <= {"errors", "rankings", "registry", "rng", "selection", "spaces"}
        assert "import torch" not in path.read_text()


def test_strategies_do_not_import_torch():
    code = "import sys, poolwise.selection.strategies; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_have_at_most_400_lines():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_importing_poolwise_is_light():
    code = (
        "import sys, poolwise; heavy = {'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules);"
        " assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_public_names_exist():
    for name in poolwise.__all__:
        assert getattr(poolwise, name) is not None


def test_no_public_name_is_hidden_by_a_package():
    code = (
        "import poolwise, importlib, pkgutil;"
        " [importlib.import_module(m.name) for m in pkgutil.walk_packages(poolwise.__path__, 'poolwise.')];"
        " assert all(callable(getattr(poolwise, name)) for name in poolwise.__all__ if name != 'tables')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
