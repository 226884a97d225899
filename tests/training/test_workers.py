"""Worker processes: the same bytes with one process and with two."""

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest

import poolwise
from conftest import results
from poolwise.errors import RequestError, RunFailure, WorkerDied
from poolwise.experiment import resolve
from poolwise.parallelism import for_search, for_trainings
from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder
from poolwise.training import calibration, workers
from poolwise.training.calibration import Parallel
from poolwise.training.workers import run_jobs


def test_one_worker_and_two_give_the_same_bytes(tiny_settings, tiny_source, tmp_path, monkeypatch):
    monkeypatch.setattr("poolwise.parallelism.SMALL_RANKING_MACS", 0)  # the ranking as well goes to the workers
    for count in (1, 2):
        config = tiny_settings.replace(supernets=3, block=8, workers=count, threads=1)
        poolwise.run(config, tmp_path / str(count), source=tiny_source)
    one, two = results(tmp_path / "1"), results(tmp_path / "2")
    assert len(one[0]) > 2
    assert one == two


class StopsAt(Listener):
    def __init__(self, steps):
        self.left = steps

    def advance(self, units=1, **info):
        self.left -= units
        self.stopping = self.left <= 0


def test_search_stopped_with_two_workers_continues_with_one(tiny_settings, tiny_source, tmp_path):
    config = tiny_settings.replace(block=4, workers=2, threads=1)
    with pytest.raises(Interrupted):
        poolwise.run(config, tmp_path / "stopped", source=tiny_source, listener=StopsAt(13))
    folder = RunFolder.open(tmp_path / "stopped")
    request = folder.request()
    request["settings"]["workers"] = 1
    folder.save_request(request)
    poolwise.resume(tmp_path / "stopped", source=tiny_source)
    poolwise.run(config.replace(workers=1), tmp_path / "undisturbed", source=tiny_source)
    stopped, undisturbed = results(tmp_path / "stopped"), results(tmp_path / "undisturbed")
    assert stopped[1:] == undisturbed[1:]


def dies(experiment, listener, hold, number):
    import os

    os._exit(9)


def test_dead_worker_raises_a_one_line_error(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings.replace(threads=1), tiny_source)
    with pytest.raises(RunFailure, match="a worker process died"):
        list(run_jobs(experiment, dies, [(1,), (2,)], Listener(), 2, 1))


def test_insufficient_shared_memory_is_reported(monkeypatch, tiny_settings, tiny_source):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    experiment = resolve(tiny_settings.replace(threads=1), tiny_source)
    with pytest.raises(RequestError, match="--shm-size"):
        list(run_jobs(experiment, dies, [(1,), (2,)], Listener(), 2, 1))


def test_threads_do_not_depend_on_the_number_of_workers(tiny_settings, tiny_source, monkeypatch):
    monkeypatch.setattr("poolwise.parallelism.cpu_threads", lambda: 8)
    monkeypatch.setattr("poolwise.training.calibration.cpu_threads", lambda: 8)
    for count in (None, 1, 2, 4):
        config = tiny_settings.replace(supernets=4, block=8, workers=count)
        experiment = resolve(config, tiny_source).with_choices(parallel=Parallel(4, 2, 1.3))
        assert for_trainings(experiment).threads == for_search(experiment).threads == 2
        assert for_trainings(experiment).workers == (count or 4)
        assert for_search(experiment.with_settings(block=1)).workers == 1  # nothing runs side by side within one step
        slow = experiment.with_choices(
            parallel=Parallel(4, 2, 3.9)
        )  # four at once are hardly faster than one on all threads
        assert for_search(slow).threads == 8


def test_more_workers_are_chosen_only_if_faster(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "cpu_threads", lambda: 4)
    seconds = {(2, 2): 0.15, (4, 1): 0.25}
    choice = calibration.parallel(lambda w, t: seconds[w, t], 0.1, 8, {"case": 1})
    assert (choice.workers, choice.threads) == (4, 1)  # 4 / 2.5 beats 2 / 1.5 and 1
    assert choice.slowdown == pytest.approx(2.5)
    again = calibration.parallel(lambda w, t: 1 / 0, 0.1, 8, {"case": 1})
    assert again == choice  # cached, not measured again
    slow = calibration.parallel(lambda w, t: 0.1 * w, 0.1, 8, {"case": 2})
    assert slow.workers == 1


def test_share_of_use_is_that_of_the_longest_chain():
    assert calibration.share_of_use(4, 16, 1) == pytest.approx(1.0)
    two = calibration.share_of_use(2, 2, 2)  # both on one net or one on each: 2 or 1 steps long, half of the time each
    assert two == pytest.approx(2 / 2 / 1.5, abs=0.05)
    assert calibration.share_of_use(8, 8, 2) > calibration.share_of_use(2, 8, 2)


def dies_at(experiment, listener, hold, number, mark):
    """Kill the worker of job 1 every time, after job 2 has started, and the worker of job 2 once."""
    import os
    import time
    from pathlib import Path

    while number == 1 and not Path(mark).exists():
        time.sleep(0.01)
    if number == 1 or (number == 2 and not Path(mark).exists()):
        Path(mark).touch()
        os._exit(9)
    return number


class PoolWithoutProcesses:
    """Replacement for ``WorkerPool``: each job is its result, and a job "deadly" breaks the pool."""

    def __init__(self, experiment, workers, threads, state=None):
        self.pending, self.broken = {}, False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, *job):
        if self.broken:
            raise BrokenProcessPool
        future = Future()
        self.pending[future] = job
        if job == ("deadly",):
            self.broken = True
            for pending in self.pending:
                pending.set_exception(BrokenProcessPool())
            self.pending.clear()
        return future

    def new_steps(self):
        for future, job in self.pending.items():
            future.set_result(job[0])
        self.pending.clear()
        return 0


@pytest.mark.parametrize("place", [1, 2, 3])
def test_no_job_is_lost_when_a_worker_dies(monkeypatch, place):
    monkeypatch.setattr(workers, "WorkerPool", PoolWithoutProcesses)
    monkeypatch.setattr(workers, "_POLL_SECONDS", 0.01)
    jobs = [(name,) for name in ("a", "b", "c")]
    jobs.insert(place, ("deadly",))
    results = {job[0]: result for job, result in run_jobs(None, None, jobs, Listener(), 2, 1)}
    assert isinstance(results.pop("deadly"), WorkerDied)
    assert results == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.slow
def test_job_of_a_dead_worker_is_repeated_once(tiny_settings, tiny_source, tmp_path):
    experiment = resolve(tiny_settings.replace(threads=1), tiny_source)
    jobs = [(number, str(tmp_path / "mark")) for number in (1, 2, 3, 4)]
    results = {job[0]: result for job, result in run_jobs(experiment, dies_at, jobs, Listener(), 2, 1)}
    assert isinstance(results.pop(1), WorkerDied)
    assert results == {2: 2, 3: 3, 4: 4}


def has_no_memory(experiment, listener, hold, number):
    import resource

    if number == 1:
        resource.setrlimit(resource.RLIMIT_AS, (2**30, resource.RLIM_INFINITY))
        return len(bytearray(2**32))
    return number


@pytest.mark.slow
def test_a_worker_without_memory_is_a_failed_job(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings.replace(threads=1), tiny_source)
    results = {job[0]: result for job, result in run_jobs(experiment, has_no_memory, [(2,), (1,)], Listener(), 2, 1)}
    assert isinstance(results[1], WorkerDied)
    assert results[2] == 2
