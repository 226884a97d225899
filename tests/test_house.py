"""The plan of the house: who may import whom, how large a file may be, how light the package is."""

import ast
import subprocess
import sys
from pathlib import Path

import poolwise

ROOT = Path(poolwise.__file__).parent
FLOORS = [
    {"errors"},
    {"sanitize", "registry"},
    {"config", "rng", "settings", "progress", "process", "stopwatch", "tabular"},
    {"space"},
    {"storage"},
    {"metrics"},
    {"images"},
    {"networks"},
    {"training"},
    {"calibration"},
    {"experiment"},
    {"workers"},
    {"limiting", "standalone"},
    {"supernets"},
    {"rankings"},
    {"truth", "controls", "trialing"},
    {"planning", "reporting", "suggesting", "handing", "refining"},
    {"pipeline"},
    {"comparing"},
    {"api"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Rooms of poolwise that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_assignment_and_samplers_know_no_network():
    samplers = list((ROOT / "supernets/samplers").glob("*.py"))
    assert len(samplers) >= 3
    for path in [ROOT / "supernets/assignment.py", *samplers]:
        assert not imports(path) & {"networks", "training", "experiment"}
        assert "import torch" not in path.read_text()


def test_methods_of_trials_know_no_network():
    for path in (ROOT / "trialing").glob("*.py"):
        assert imports(path) <= {"errors", "rankings", "registry", "rng", "space", "trialing"}
        assert "import torch" not in path.read_text()


def test_strategies_import_no_torch():
    code = "import sys, poolwise.trialing; assert 'torch' not in sys.modules"
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
