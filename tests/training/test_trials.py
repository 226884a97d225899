"""Loop over stand-alone trainings: what it trains and records, how it fails and continues."""

import dataclasses
import os

import pytest
import torch

from poolwise.errors import RequestError, RunFailure, WorkerDied
from poolwise.experiment import resolve
from poolwise.progress import Interrupted, Listener
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, checkpoint_name
from poolwise.training import LossNotFinite, trials
from poolwise.training.calibration import Parallel
from poolwise.training.standalone import RETRAINING, Outcome, Purpose, train_standalone
from poolwise.training.trials import TrainingRequest, TrialRunner, weights_name

PURPOSE = Purpose("refine")
REQUESTS = [TrainingRequest("4-3-3", 1, 2), TrainingRequest("3-4-3", 1, 2), TrainingRequest("4-3-3", 2, 3)]


class Recorder(Listener):
    def __init__(self):
        self.calls, self.notes = [], []

    def start(self, stage, total, done=0):
        self.calls.append(("start", stage, total, done))

    def advance(self, units=1, **info):
        self.calls.append(("advance", units))

    def note(self, text):
        self.notes.append(text)

    def finish(self):
        self.calls.append(("finish",))


class FakeTraining:
    """Replacement for ``train_standalone``: records what is trained and raises the ``errors`` of a configuration."""

    def __init__(self, **errors):
        self.trained, self.errors = [], {name.replace("_", "-"): error for name, error in errors.items()}

    def __call__(self, experiment, pooling, seed, steps, purpose, listener):
        self.trained.append(TrainingRequest(str(pooling), seed, steps))
        if str(pooling) in self.errors:
            raise self.errors[str(pooling)]
        return Outcome(0.5 + seed / 10 if purpose.measured else None, [(steps, 1.5)], torch.nn.Linear(1, 1))


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {})


@pytest.fixture
def file(folder):
    return folder.trials()


@pytest.fixture
def make(file, monkeypatch):
    """Return a runner with a new fake training on the same file, as in another process."""

    def make(purpose=PURPOSE, errors=(), listener=None, **options):
        fake = FakeTraining(**dict(errors))
        monkeypatch.setattr(trials, "train_standalone", fake)
        runner = TrialRunner(None, file, purpose, listener or Recorder(), parallel=Parallel(1, 1), **options)
        return runner, fake

    return make


def test_recorded_trainings_are_skipped(make, file):
    runner, fake = make()
    rows = runner.run(REQUESTS[:2], "refine")
    assert fake.trained == REQUESTS[:2]
    assert runner.listener.calls == [("start", "refine", 4, 0), ("finish",)]
    assert runner.listener.notes[0] == "trained 4-3-3, seed 1, 2 steps: 60.00 % on the scoring half"
    runner, fake = make()
    again = runner.run(REQUESTS, "refine")
    assert fake.trained == REQUESTS[2:]
    assert runner.listener.calls[0] == ("start", "refine", 7, 4)
    assert list(again) == REQUESTS
    assert [row["accuracy"] for row in again.values()] == [0.6, 0.6, 0.7]
    assert {request: (row["accuracy"], row["seconds"]) for request, row in rows.items()} == {
        request: (again[request]["accuracy"], again[request]["seconds"]) for request in REQUESTS[:2]
    }
    stored = {TrainingRequest(row["pooling"], row["seed"], row["budget"]): row for row in file.all()}
    assert {request: row["accuracy"] for request, row in stored.items()} == {r: again[r]["accuracy"] for r in REQUESTS}
    assert all(set(row) == set(again[request]) for request, row in stored.items())


def test_recorded_steps_count_as_progress_of_the_stage(make):
    runner, _ = make()
    runner.run(REQUESTS[:1])
    runner.run(REQUESTS)
    assert runner.listener.calls == [("advance", 0), ("advance", 2)]


def test_failures_are_recorded_and_other_trainings_continue(make, file):
    errors = {"4_3_3": LossNotFinite("the loss is nan"), "3_4_3": WorkerDied("out of memory")}
    runner, _ = make(errors=errors, consequence="; it counts as the worst")
    rows = runner.run([*REQUESTS, TrainingRequest("5-3-2", 1, 2)])
    assert [row["state"] for row in rows.values()] == ["failed", "failed", "failed", "done"]
    assert [row["error"] for row in rows.values()] == ["the loss is nan", "out of memory", "the loss is nan", None]
    assert "failed: out of memory; it counts as the worst" in runner.listener.notes
    assert {row["state"] for row in file.all()} == {"failed", "done"}
    runner, fake = make()
    assert runner.run(REQUESTS)[REQUESTS[0]]["error"] == "the loss is nan"
    assert fake.trained == []


def test_failed_trainings_are_repeated_on_request(make, file):
    make(errors={"4_3_3": LossNotFinite("the loss is nan")})[0].run(REQUESTS)
    runner, fake = make(retry_failed=True)
    rows = runner.run(REQUESTS)
    assert fake.trained == [REQUESTS[0], REQUESTS[2]]
    assert {row["state"] for row in rows.values()} == {row["state"] for row in file.all()} == {"done"}


@pytest.mark.parametrize(
    ("error", "tolerated"), [(RequestError("wrong"), (LossNotFinite,)), (LossNotFinite("nan"), (WorkerDied,))]
)
def test_other_errors_stop_the_loop_and_keep_finished_results(make, file, error, tolerated):
    runner, fake = make(errors={"3_4_3": error}, record_errors=tolerated)
    with pytest.raises(type(error)):
        runner.run(REQUESTS, "exhaustive")
    assert fake.trained == REQUESTS[:2]
    assert [(row["pooling"], row["state"]) for row in file.all()] == [("4-3-3", "done")]
    assert ("finish",) not in runner.listener.calls
    assert make()[0].run(REQUESTS)[REQUESTS[1]]["state"] == "done"


def test_stopped_loop_continues_with_missing_trainings(make, file):
    with pytest.raises(Interrupted):
        make(errors={"3_4_3": Interrupted()})[0].run(REQUESTS)
    runner, fake = make()
    runner.run(REQUESTS)
    assert fake.trained == REQUESTS[1:]


def test_weights_are_saved_and_retrained_if_missing(make, file, folder):
    runner, fake = make(RETRAINING, save_weights_to=folder)
    runner.run(REQUESTS[:2])
    names = [checkpoint_name(weights_name(*request)) for request in REQUESTS[:2]]
    assert all((folder.path / name).exists() for name in names)
    _, meta = folder.load_checkpoint(weights_name(*REQUESTS[1]))
    assert {name: meta[name] for name in ("pooling", "seed", "steps")} == {"pooling": "3-4-3", "seed": 1, "steps": 2}
    assert "on the test set" in runner.listener.notes[0]
    folder.save_request(folder.request(), drop=(names[0],))
    runner, fake = make(RETRAINING, save_weights_to=folder)
    runner.run(REQUESTS[:2])
    assert fake.trained == REQUESTS[:1]
    assert make(RETRAINING)[0].run(REQUESTS[:2]).keys() == set(REQUESTS[:2])


def test_external_results_count_as_recorded(make):
    runner, fake = make()
    runner.record(REQUESTS[0], trials.Result(0.25, [(2, 1.0)], 3.0))
    assert runner.run(REQUESTS[:1])[REQUESTS[0]]["accuracy"] == 0.25
    assert fake.trained == []
    assert runner.listener.notes == []


def test_purpose_determines_training_and_test_images(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings, tiny_source)
    other = dataclasses.replace(tiny_source, test=tiny_source.train)
    outcomes = {
        (purpose, source): train_standalone(
            resolve(tiny_settings, which), Pooling.parse("4-3-3"), 1, 3, purpose, Listener()
        )
        for purpose in (PURPOSE, RETRAINING, Purpose("refine", measured=False))
        for source, which in (("same", tiny_source), ("other test set", other))
    }
    assert outcomes[PURPOSE, "same"].accuracy == outcomes[PURPOSE, "other test set"].accuracy
    assert outcomes[RETRAINING, "same"].accuracy * 48 == pytest.approx(
        round(outcomes[RETRAINING, "same"].accuracy * 48)
    )
    assert outcomes[RETRAINING, "same"].curve == outcomes[RETRAINING, "other test set"].curve
    unmeasured = outcomes[Purpose("refine", measured=False), "same"]
    assert unmeasured.accuracy is None
    assert unmeasured.curve == outcomes[PURPOSE, "same"].curve != outcomes[RETRAINING, "same"].curve
    assert len(experiment.halves[0]) == 48


def die_of_one(experiment, listener, state, pooling, *rest):
    """Replacement for ``trials._train`` in worker processes."""
    if pooling == "3-4-3":
        os._exit(9)
    return trials.Result(0.5, [(1, 1.0)], 0.1)


@pytest.mark.slow
def test_training_fails_if_its_worker_dies_twice(file, tiny_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(trials, "_train", die_of_one)
    experiment = resolve(tiny_settings.replace(threads=1), tiny_source)
    runner = TrialRunner(experiment, file, PURPOSE, Recorder(), parallel=Parallel(2, 1))
    rows = runner.run(REQUESTS)
    assert [row["state"] for row in rows.values()] == ["done", "failed", "done"]
    assert rows[REQUESTS[1]]["error"].startswith("3-4-3, 1, 2: its worker process died twice")


def test_resume_repeats_a_retraining_whose_worker_died(folder, make, tiny_settings, tiny_source, monkeypatch):
    from poolwise.selection import retrain as retraining

    experiment = resolve(tiny_settings.replace(threads=1, workers=1), tiny_source)
    _, fake = make(errors={"3_4_3": WorkerDied("out of memory")})
    with pytest.raises(RunFailure, match="all other trainings are finished and saved: run poolwise resume"):
        retraining._train(experiment, folder, [("3-4-3", 1), ("4-3-3", 1)], Listener())
    assert [request.pooling for request in fake.trained] == ["3-4-3", "4-3-3"]
    _, fake = make()
    retraining._train(experiment, folder, [("3-4-3", 1), ("4-3-3", 1)], Listener())
    assert [request.pooling for request in fake.trained] == ["3-4-3"]
