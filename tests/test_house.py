"""The plan of the house: who may import whom, how large a file may be, how light the package is."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import poolwise

ROOT = Path(poolwise.__file__).parent
# floors from the ground up; on one floor, a room may import those before it
FLOORS = [
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
FLOOR = {room: (level, place) for level, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)}


class WithoutTypes(ast.NodeTransformer):
    """Removes what only type checkers import."""

    def visit_If(self, node):
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports(path: Path) -> set[str]:
    """Rooms of poolwise that a file imports when it runs."""
    found = set()
    for node in ast.walk(WithoutTypes().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poolwise":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found - {"__version__"}


def test_imports_run_downwards():
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imports(path) - {room}:
            assert FLOOR[other] < FLOOR[room], f"{path.name} in {room} imports {other}, which is not below it"


def modules() -> dict[str, Path]:
    """Every module of the package, ``poolwise.datasets.folder``, and its file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_modules(source: str, known: set[str]) -> set[str]:
    """Modules of ``known`` that a source imports, in functions as well, but not what only type checkers see."""
    found, left = set(), [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known
            found |= {node.module} & known if names - known else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        left += ast.iter_child_nodes(node)
    return found


def test_no_modules_import_each_other_in_a_circle():
    files = modules()
    graph = {name: imported_modules(path.read_text(), set(files)) - {name} for name, path in files.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(f"modules import each other in a circle: {' <- '.join(error.args[1])}") from None


def test_imports_in_functions_count_and_those_of_type_checkers_do_not():
    known = {"poolwise.a", "poolwise.a.b", "poolwise.c", "poolwise.d"}
    source = """
if TYPE_CHECKING:
    from poolwise.d import D
from poolwise.a import b, other
def function():
    import poolwise.c
"""
    assert imported_modules(source, known) == {"poolwise.a", "poolwise.a.b", "poolwise.c"}


def test_assignment_and_samplers_know_no_network():
    samplers = list((ROOT / "supernets/samplers").glob("*.py"))
    assert len(samplers) >= 3
    for path in [ROOT / "supernets/assignment.py", *samplers]:
        assert not imports(path) & {"models", "training", "experiment"}
        assert "import torch" not in path.read_text()


def test_methods_of_trials_know_no_network():
    for path in (ROOT / "selection/strategies").glob("*.py"):
        assert imports(path) <= {"errors", "rankings", "registry", "rng", "selection", "spaces"}
        assert "import torch" not in path.read_text()


def test_strategies_import_no_torch():
    code = "import sys, poolwise.selection.strategies; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_are_short():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_import_is_light():
    code = (
        "import sys, poolwise; heavy = {'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules);"
        " assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    for name in poolwise.__all__:
        assert getattr(poolwise, name) is not None


def test_no_public_name_is_hidden_by_a_room():
    code = (
        "import poolwise, importlib, pkgutil;"
        " [importlib.import_module(m.name) for m in pkgutil.walk_packages(poolwise.__path__, 'poolwise.')];"
        " assert all(callable(getattr(poolwise, name)) for name in poolwise.__all__ if name != 'tables')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
