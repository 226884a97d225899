"""Plans, time budgets and memory checks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.pipeline import autotuning, estimates
from poolwise.pipeline.estimates import fit, parse_time
from poolwise.sanitize import json_text
from poolwise.training.calibration import Timing

STAGES = ("search", "rank", "retrain")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_times_are_parsed(hours, minutes, seconds):
    assert parse_time(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "1.5h", "0s", "5 minutes", "٣m", "m" * 100])
def test_invalid_times_are_rejected(text):
    with pytest.raises(RequestError, match="time"):
        parse_time(text)


TIMING = Timing(
    (0.5, 0.0), (0.1, 0.0), 1e-12, 0.0
)  # seconds of a training step and a scoring pass, for any configuration


def plan(experiment, stages, trainings=None):
    return estimates.plan(experiment, stages, trainings, TIMING)


def prepared(config, source):
    return autotuning.prepare(config, source)[0]


@pytest.fixture
def slow_machine(monkeypatch):
    monkeypatch.setattr(autotuning, "timing", lambda experiment: TIMING)


def test_seconds_are_steps_times_cost(tiny_settings, tiny_source, slow_machine):
    experiment = resolve(tiny_settings.replace(threads=1, workers=1), tiny_source)
    planned = plan(experiment, STAGES)
    assert planned.of("search") == pytest.approx(30 * 0.6)
    one = 6 * 0.5 + 48 / 16 * 0.1  # steps, then the test set
    assert planned.of("retrain") == pytest.approx(4 * 2 * one)
    poolings = list(experiment.space)
    known = plan(experiment, ["retrain"], {"retrain": [(poolings[0], 2), (poolings[5], 3)]})
    assert known.seconds == pytest.approx(5 * one)
    assert planned.of("rank") == pytest.approx(1e-12 * planned.stages[1].macs)
    assert planned.of("report") is None


@pytest.mark.parametrize("seconds", [150, 1000, 20_000])
def test_a_time_budget_is_used_and_not_exceeded(tiny_settings, tiny_source, slow_machine, seconds):
    config = tiny_settings.replace(threads=1, workers=1)
    fitted = fit(config, seconds, STAGES, [], tiny_source)
    planned = plan(resolve(fitted, tiny_source), STAGES)
    assert 0.7 * seconds < planned.seconds <= seconds
    assert fitted.search.supernets == max(min(2, fitted.search.steps // estimates.STEPS_PER_SUPERNET), 1)


def test_a_time_budget_keeps_requested_settings(tiny_settings, tiny_source, slow_machine):
    config = tiny_settings.replace(threads=1, workers=1, steps=77)
    fitted = fit(config, 500, STAGES, ["steps", "supernets", "images"], tiny_source)
    assert fitted == config.replace(retrain_steps=fitted.retrain.steps)
    with pytest.raises(RequestError, match="nothing to choose"):
        fit(config, 500, STAGES, ["epochs", "supernets", "images", "retrain_steps"], tiny_source)


def test_too_short_a_budget_is_rejected(tiny_settings, tiny_source, slow_machine):
    with pytest.raises(RequestError, match="allow"):
        fit(tiny_settings.replace(threads=1, workers=1), 12, STAGES, [], tiny_source)


def test_a_run_that_exceeds_memory_is_rejected(tiny_settings, tiny_source, slow_machine, monkeypatch):
    experiment = resolve(tiny_settings, tiny_source)
    planned = plan(experiment, STAGES)
    estimates.check_memory(planned, experiment)
    monkeypatch.setattr(estimates, "free_bytes", lambda device: planned.memory_bytes - 1)
    with pytest.raises(RequestError, match="--batch-size \\(now 16\\)"):
        estimates.check_memory(planned, experiment)


def test_the_number_of_supernets_is_chosen_with_a_reason(tiny_settings, tiny_source, slow_machine):
    config = tiny_settings.replace(supernets=None, threads=1, workers=1)
    few, many = (prepared(config.replace(steps=steps), tiny_source) for steps in (3900, 9000))
    assert (few.config.search.supernets, few.config.search.branching) == (1, None)
    assert plan(few, ["search"]).lines()[0] == "One SuperNet (3,900 steps; two need 4,000)"
    assert (many.config.search.supernets, many.config.search.branching) == (4, "measured")
    line = "One SuperNet at the start, up to 4 if that lowers the loss (9,000 steps; each needs 2,000)"
    assert plan(many, ["search"]).lines()[0] == line
    fixed = prepared(config.replace(steps=9000, method="partition-first"), tiny_source)
    assert (fixed.config.search.supernets, fixed.config.search.branching) == (4, None)
    search, without = (
        plan(resolve(many.config.replace(branching=how), tiny_source), ["search"]).of("search")
        for how in ("measured", "fixed")
    )
    assert without < search < 1.2 * without
    requested = prepared(config.replace(supernets=5), tiny_source)
    assert plan(requested, ["search"]).supernets is None


def test_seconds_are_unknown_without_timing(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings, tiny_source)
    untimed = estimates.plan(experiment, STAGES)
    assert (untimed.seconds, untimed.of("search"), untimed.stages[0].fixed_seconds) == (None, None, None)
    assert json.loads(json_text(untimed.to_json()))["seconds"] is None
    assert not any("about" in line for line in untimed.lines())
    timed = plan(experiment, STAGES)
    for name in ("steps", "macs", "memory_bytes"):
        assert [getattr(stage, name) for stage in untimed.stages] == [getattr(stage, name) for stage in timed.stages]


def test_proxy_training_is_planned_with_the_search(tiny_settings, tiny_source, slow_machine):
    config = tiny_settings.replace(steps=1500, short=0.5, threads=1, workers=1)
    experiment = prepared(config, tiny_source)
    planned = plan(experiment, ["search", "rank"])
    search, short, _ = planned.stages
    assert (search.steps, short.steps) == (1500 - 20 * 36, 20 * 36)
    macs = sum(experiment.cost(pooling).macs for pooling in experiment.space)
    assert short.macs == 3 * 16 * 20 * macs
    assert short.seconds == pytest.approx(short.steps / search.steps * search.seconds, rel=0.5)
    assert "proxy training (1 x 20 steps for each of 36 configurations): 720 steps" in planned.lines()[1]
    fitted = fit(
        config, 2 * planned.seconds / estimates.RESERVE, ["search", "rank"], ["supernets", "images"], tiny_source
    )
    again = plan(prepared(fitted, tiny_source), ["search", "rank"])
    assert again.seconds == pytest.approx(2 * planned.seconds, rel=0.1)
