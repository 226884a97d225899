"""The path from the command to an optimizer step, and from the search to the ranking within one process."""

import signal
import traceback
from pathlib import Path

import pytest

import poolwise
from conftest import After
from poolwise.cli import main
from poolwise.progress import Interrupted
from poolwise.storage import RunFolder
from poolwise.supernets import mixture
from poolwise.supernets.state import CHECKPOINT

ROOT = Path(poolwise.__file__).parent


def path_to_train_step(monkeypatch, arguments):
    """Return the functions of poolwise between the command and the first ``train_group`` of a search, outermost first."""
    stacks = []

    def stopping(*_):
        stacks.append(traceback.extract_stack()[:-1])
        raise Interrupted

    monkeypatch.setattr(mixture, "train_group", stopping)
    with pytest.raises(SystemExit):
        main(arguments)
    inside = [frame for frame in stacks[0] if ROOT in Path(frame.filename).parents]
    return [f"{Path(frame.filename).relative_to(ROOT).as_posix()}:{frame.name}" for frame in inside]


@pytest.fixture
def restored_signals():
    """Restore the signal handlers that the command replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_call_path_from_the_command_to_an_optimizer_step_is_short(
    tmp_path, image_folder, monkeypatch, restored_signals
):
    command = (
        f"run --data folder:{image_folder} --image-size 8 --width 2 --supernets 2 --steps 4 --batch-size 4 --retrain-steps 1"
        f" --retrain-seeds 1 --precision float32 --device cpu --threads 1 --workers 1 --out {tmp_path / 'run'}"
    )
    path = path_to_train_step(monkeypatch, command.split())
    assert path[-4:] == [
        "pipeline/graph.py:_search",
        "supernets/trainer.py:train",
        "supernets/trainer.py:train_block",
        "supernets/mixture.py:train_and_score",
    ]
    assert path[0] == "cli/commands.py:main"
    assert len(path) <= 9, path


@pytest.fixture
def loaded(monkeypatch):
    """Return the names of the checkpoints that are read."""
    names, original = [], RunFolder.load_checkpoint

    def recorded(folder, name):
        checkpoint = original(folder, name)
        if checkpoint is not None:
            names.append(name)
        return checkpoint

    monkeypatch.setattr(RunFolder, "load_checkpoint", recorded)
    return names


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "mixture", "supernets": 2},
        {"method": "mixture", "supernets": 3, "warm_up": 0.35, "block": 4, "rank_on": "all"},
        {"method": "mixture", "supernets": 4, "branching": "measured", "steps": 24},
    ],
)
def test_ranking_from_the_live_state_equals_ranking_from_the_checkpoint(
    tmp_path, tiny_settings, tiny_source, loaded, changes
):
    config = tiny_settings.replace(retrain_steps=1, retrain_seeds=1, **changes)
    poolwise.run(config, tmp_path / "direct", source=tiny_source)
    assert CHECKPOINT not in loaded
    poolwise.search(config, tmp_path / "staged", source=tiny_source)
    assert CHECKPOINT not in loaded
    poolwise.rank(tmp_path / "staged", source=tiny_source)
    assert loaded == [CHECKPOINT]
    staged, direct = ((tmp_path / name / "ranking.json").read_bytes() for name in ("staged", "direct"))
    assert staged == direct


def test_a_resumed_run_reads_its_checkpoint_once(tmp_path, tiny_settings, tiny_source, loaded):
    config = tiny_settings.replace(retrain_steps=1, retrain_seeds=1)
    with pytest.raises(Interrupted):
        poolwise.run(config, tmp_path / "run", source=tiny_source, listener=After(7))
    poolwise.resume(tmp_path / "run", source=tiny_source)
    assert loaded == [CHECKPOINT]
