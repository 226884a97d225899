"""``refine`` inside an Optuna study."""

import sys

import optuna
import pytest

import poolwise
from poolwise import tables
from poolwise.errors import RequestError

TABLE = tables.load("resnet20-cifar10-published")
SCORES = dict(zip(TABLE.space, TABLE.column("supernets8_mean"), strict=True))


def make(**more):
    return poolwise.optuna_sampler(TABLE.space, trials=8, default="4-3-3", hints={"scores": SCORES.__getitem__}, **more)


def objective(sampler):
    def train(trial):
        trial.suggest_float("lr", 0.1, 0.2)
        return TABLE.query(trial.suggest_categorical("pooling", sampler.names)) / 100

    return train


def test_sampler_drives_a_study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = []
    for _ in range(2):
        sampler = make()
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective(sampler), n_trials=8)
        chosen.append([trial.params["pooling"] for trial in study.trials])
    assert chosen[0] == chosen[1]
    assert chosen[0][0] == "4-3-3"
    assert study.best_value > 0.917


def test_running_trials_are_taken_into_account():
    sampler = make()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective(sampler), n_trials=2)
    open_ = [study.ask() for _ in range(3)]
    names = [trial.suggest_categorical("pooling", sampler.names) for trial in open_]
    assert len(set(names)) == 3
    study.tell(open_[0], state=optuna.trial.TrialState.FAIL)
    study.optimize(objective(sampler), n_trials=1)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "RUNNING", "RUNNING", "COMPLETE"]
    assert study.trials[-1].params["pooling"] not in names[1:], "a running configuration is not proposed again"


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RequestError, match=r"pip install 'poolwise\[compare\]'"):
        make()
