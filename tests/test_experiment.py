"""Experiments: resolved once, immutable; variants share loaded data."""

import dataclasses

import pytest

from poolwise import api, constraints
from poolwise.config import preset
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.pipeline import autotuning, runner
from poolwise.progress import Interrupted, Listener
from poolwise.training import Precision, calibration
from poolwise.training.calibration import Parallel

CHOICES = {"precision": "float32", "threads": 1, "workers": 1}


class Notes(Listener):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.mark.parametrize("name", ["settings", "parallel", "normalize", "precision", "supernets_reason", "space"])
def test_an_experiment_is_immutable(tiny_settings, tiny_source, name):
    experiment = resolve(tiny_settings, tiny_source)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(experiment, name, None)


def test_variants_share_images_weights_and_choices(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings, tiny_source).with_choices(
        precision=Precision("bfloat16"), parallel=Parallel(3, 2, 1.5), supernets_reason="because"
    )
    batches, halves = experiment.batches(experiment.training_images, 8), experiment.halves
    wider = experiment.with_settings(width=4)
    assert (wider.width, wider.config.model.width, experiment.width) == (4, 4, 2)
    assert wider.cost(wider.default).macs > experiment.cost(experiment.default).macs
    assert (wider.precision, wider.parallel) == (experiment.precision, experiment.parallel)
    assert wider.supernets_reason == "because"
    assert wider.halves is halves
    assert wider.normalize is experiment.normalize
    assert wider.batches(wider.training_images, 8).images_NHWC is batches.images_NHWC
    few = experiment.with_settings(images=24)
    assert len(few.training_images) == 24
    assert sum(map(len, few.halves)) == 24
    limited = experiment.with_settings(only=(str(experiment.space[0]),))
    assert set(limited.space) == {experiment.space[0], experiment.default}


def test_recorded_choices_are_kept(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings, tiny_source).with_choices(
        precision=Precision("bfloat16", True), parallel=Parallel(3, 2, 1.5)
    )
    again = resolve(tiny_settings, tiny_source, experiment.describe_choices())
    assert (again.precision, again.parallel) == (experiment.precision, experiment.parallel)


@pytest.fixture
def timed(monkeypatch):
    """Return the list of timing calls, in order."""
    calls = []
    for module, name in (
        (autotuning, "_step_seconds"),
        (autotuning, "_side_by_side"),
        (autotuning, "timing"),
        (calibration, "choose"),
        (calibration, "timing"),
    ):
        original = getattr(module, name)

        def count(*args, _name=name, _original=original, **options):
            calls.append(_name)
            return _original(*args, **options)

        monkeypatch.setattr(module, name, count)
    return calls


def test_no_step_is_timed_if_all_choices_are_set(tiny_settings, tiny_source, tmp_path, timed):
    config = tiny_settings.replace(**CHOICES, steps=4, retrain_steps=2, retrain_seeds=1)
    api.run(config, tmp_path / "run", source=tiny_source)
    assert timed == []


def test_by_default_only_a_few_steps_are_timed(tiny_settings, tiny_source, tmp_path, timed):
    config = tiny_settings.replace(precision=None, steps=4, retrain_steps=2, retrain_seeds=1)
    api.run(config, tmp_path / "run", source=tiny_source)
    assert timed == ["_step_seconds"]
    api.plan(config, source=tiny_source)  # a plan is requested
    assert timed[1:] == ["timing", "timing"]


def test_timing_a_few_steps_stops_after_five_seconds(tiny_settings, tiny_source, monkeypatch):
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(autotuning.time, "perf_counter", lambda: next(clock))
    experiment = resolve(tiny_settings, tiny_source)
    assert autotuning._step_seconds(experiment) == 2
    assert next(clock) == 12  # three steps of two seconds


def test_measuring_processes_respects_the_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "cpu_threads", lambda: 4)
    assert calibration.allowed_seconds(60) == 5
    assert calibration.allowed_seconds(6000) == 60
    tried = []

    def step_seconds(workers, threads):
        tried.append(workers)
        return 0.1 * workers**0.5

    assert calibration.parallel(step_seconds, 0.1, 8, {"case": 1}, allowed=5) is None
    assert tried == []
    assert calibration.parallel(step_seconds, 0.1, 8, {"case": 1}, allowed=8).workers == 2
    assert calibration.parallel(step_seconds, 0.1, 8, {"case": 1}, allowed=60).workers == 4
    assert tried == [2, 2, 4]


def test_measuring_number_formats_respects_the_limit(tiny_settings, tiny_source, monkeypatch, tmp_path):
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path))
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(clock))
    experiment = resolve(tiny_settings.replace(precision="auto"), tiny_source)
    short = autotuning.tune(experiment, 10)
    assert set(short.precision_seconds) == {"float32"}
    assert not list(tmp_path.rglob("*.json"))  # an incomplete measurement is not stored
    assert len(autotuning.tune(experiment, 10**6).precision_seconds) > 1


def test_processes_depend_on_cores_and_work(tiny_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(autotuning, "cpu_threads", lambda: 12)
    experiment = resolve(tiny_settings, tiny_source)
    assert autotuning.default_parallel(experiment, 100) == Parallel(1, 12)
    long = autotuning.default_parallel(experiment, 10**12)
    assert (long.workers, long.threads) == (6, 2)
    assert 1 < long.slowdown < 6
    for workers in (1, 2, "auto"):  # threads are part of the result and do not depend on the workers
        again = experiment.with_settings(workers=workers)
        assert autotuning.default_parallel(again, 10**12).threads == 2
        assert autotuning.default_parallel(again, 10**12) == long  # so a refinement chooses as many at once
    assert autotuning.default_parallel(experiment.with_settings(threads=3), 10**12) == Parallel(1, 3)


def test_the_first_message_precedes_loading_the_images(tiny_settings, tiny_source, tmp_path, monkeypatch):
    notes, order = Notes(), []

    def load(*args, on_progress, **options):
        order.append(list(notes.lines))
        on_progress("decoded 1 of 2 images")
        return tiny_source

    monkeypatch.setattr("poolwise.datasets.loading.load", load)
    config = tiny_settings.replace(**CHOICES, steps=2)
    api.search(config, tmp_path / "run", listener=notes)
    assert order == [["loading cifar10"]]
    assert notes.lines[1:3] == [
        "decoded 1 of 2 images",
        "loaded tiny: 96 training and 48 test images of 8 pixels, 3 classes",
    ]


def test_a_run_loads_and_resolves_once(tiny_settings, tiny_source, tmp_path, monkeypatch):
    loaded, resolved, planned = [], [], []
    monkeypatch.setattr("poolwise.datasets.loading.load", lambda *args, **options: loaded.append(args) or tiny_source)
    original = autotuning.resolve
    monkeypatch.setattr(
        autotuning, "resolve", lambda *args, **options: resolved.append(1) or original(*args, **options)
    )
    monkeypatch.setattr(runner, "resolve", lambda *args, **options: pytest.fail("resolved again"))
    plan = runner.estimates.plan

    def counted(experiment, stages, *args):
        planned.append(list(stages))
        return plan(experiment, stages, *args)

    monkeypatch.setattr(runner.estimates, "plan", counted)
    config = tiny_settings.replace(**CHOICES, steps=4, retrain_steps=2, retrain_seeds=1)
    api.run(config, tmp_path / "run")
    assert (len(loaded), len(resolved)) == (1, 1)
    assert planned == [["search", "rank", "retrain", "report"], ["retrain"]]  # again once the trainings are known


def test_a_run_started_with_auto_resumes(tiny_settings, tiny_source, tmp_path):
    class Stops(Listener):
        def finish(self):
            self.stopping = True

    config = tiny_settings.replace(precision="auto", steps=4, retrain_steps=2, retrain_seeds=1)
    with pytest.raises(Interrupted):
        api.run(config, tmp_path / "run", source=tiny_source, listener=Stops())
    folder = runner.RunFolder.open(tmp_path / "run")
    chosen = folder.request()["calibration"]
    assert chosen["seconds_per_step"][chosen["precision"]] > 0
    api.resume(tmp_path / "run", source=tiny_source)
    assert folder.request()["calibration"] == chosen


def test_the_data_set_is_named_before_it_is_read(tmp_path):
    notes = Notes()
    with pytest.raises(RequestError, match="does not exist"):
        api.search(preset("demo").replace(data=f"folder:{tmp_path / 'no'}"), tmp_path / "run", listener=notes)
    assert notes.lines == [f"loading folder:{tmp_path / 'no'}"]


def test_a_resumed_run_keeps_its_block_on_another_device(tiny_settings, tiny_source):
    started = resolve(tiny_settings.replace(supernets=1, block=None), tiny_source)
    assert started.block == 1
    choices = started.describe_choices()
    on_cuda = {**choices, "block": 16}
    resumed = resolve(started.config, tiny_source, on_cuda)
    assert resumed.block == 16
    assert resumed.with_settings(retrain_seeds=3).block == 16
    assert resolve(started.config.replace(block=4), tiny_source, on_cuda).block == 4
    del choices["block"]  # an old run folder
    assert resolve(started.config, tiny_source, choices).block == 1


def test_block_of_a_new_run_follows_its_settings(tiny_settings, tiny_source):
    single = resolve(tiny_settings.replace(supernets=1, block=None), tiny_source)
    assert (single.block, single.with_settings(supernets=4).block) == (1, 8)


def test_measured_seconds_are_kept_with_limits_and_at_resume(tiny_settings, tiny_source):
    measured = {"float32": 0.5, "bfloat16": 0.25}
    experiment = resolve(tiny_settings, tiny_source).with_choices(precision_seconds=measured)
    limited, feasible = constraints.limited(experiment.with_settings(max_macs=0.9))
    assert feasible is not None
    assert limited.describe_choices()["seconds_per_step"] == measured
    resumed = resolve(limited.config, tiny_source, limited.describe_choices())
    assert resumed.precision_seconds == measured
