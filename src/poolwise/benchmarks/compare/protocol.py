"""Comparison protocol: all methods with one network, split and recipe at equal compute, for several budgets and seeds.

All errors of a request are reported before anything is written. Each entry has its own folder under ``runs/``;
repeating the request resumes unfinished entries.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from poolwise import parallelism
from poolwise.benchmarks.compare import entries
from poolwise.benchmarks.compare.compute import Compute
from poolwise.benchmarks.compare.config import CompareConfig, ComparisonPlan, PlannedEntry
from poolwise.benchmarks.compare.entries import Work
from poolwise.benchmarks.compare.judge import Entry
from poolwise.benchmarks.compare.methods import MethodSpec, parse_methods, search_settings
from poolwise.benchmarks.compare.study import settings_of
from poolwise.config import Config, preset
from poolwise.datasets.sources import Source
from poolwise.errors import PoolwiseError, RequestError
from poolwise.experiment import Experiment, resolve
from poolwise.pipeline import autotuning, runner
from poolwise.process import threads_here
from poolwise.progress import Listener
from poolwise.rankings.scoring import RANKED_CONFIGURATIONS
from poolwise.sanitize import json_text
from poolwise.spaces import LISTED
from poolwise.storage import FORMAT, command_line, environment, exclusive, read_checked, write_atomically
from poolwise.storage.tables import Table
from poolwise.supernets import samplers
from poolwise.supernets.budget import on_supernets, share_of
from poolwise.training.workers import run_jobs

REQUEST = "study.json"


def recipe_of(table: Table, model: str, name: str | None = None) -> Config:
    """Return the config that a table was made with, from its JSON or, if it has none, from the preset ``named``.

    Raises:
        RequestError: Neither is available, or both are.
    """
    stored = table.about.get("recipe")
    if stored is None and name is None:
        raise RequestError(
            f"table {table.name} does not state how its networks were trained (images, epochs, batch size, learning"
            " rate): use --recipe paper, or make a table with poolwise exhaustive --table"
        )
    if stored is not None and name is not None:
        raise RequestError(f"table {table.name} stores its own recipe: omit --recipe")
    if stored is not None:
        return runner.with_absolute_paths(settings_of(table, model))
    assert name is not None
    return preset(name, model=model, width=table.about.get("width"))


class Protocol:
    """The trainings of a comparison.

    Args:
        config: Options of the comparison; all trainings use its ``recipe``, or that of the table.
        table: The table that ``config`` names.
        model: Network family.
        out: Folder of the study.
        source: Images, if they are not loaded from the data set that the table names.
        listener: Receives notes about slow operations.

    Raises:
        RequestError: The request is invalid, or ``out`` holds a different study.
    """

    def __init__(
        self,
        config: CompareConfig,
        table: Table,
        model: str,
        out: Path,
        source: Source | None = None,
        listener: Listener | None = None,
    ):
        self.table, self.out = table, out
        self.methods = parse_methods(config.methods, config.supernets)
        budgets, seeds = config.budgets, config.seeds
        earlier = read_checked(out / REQUEST) if (out / REQUEST).exists() else {}
        hardware = config.hardware
        recipe = self._recipe(recipe_of(table, model, config.recipe), hardware, earlier)
        steps = len(self.methods) * len(seeds) * sum(budgets) * 4 // 3  # adds one scoring pass per step
        self.experiment = autotuning.tune(resolve(recipe, source, listener=listener), steps, listener)
        self._check_images()
        if len(table.space) > RANKED_CONFIGURATIONS:
            raise RequestError(
                f"table {table.name} has more than {RANKED_CONFIGURATIONS} configurations: use a smaller one"
            )
        self.compute = Compute(self.experiment)
        self.parallel = parallelism.for_trainings(self.experiment)
        threads = hardware.get("threads") or earlier.get("threads") or self.parallel.threads
        self.config = self.experiment.config.replace(
            precision=str(self.experiment.precision), threads=threads, workers=1, profile=False
        )
        self.request = self._request()
        _check_same(out, earlier, self.request)
        self.works = [self._work(c, budget, seed) for budget in budgets for seed in seeds for c in self.methods]
        for work in self.works:
            work.check()

    def _recipe(self, recipe: Config, hardware: dict[str, Any], earlier: dict[str, Any]) -> Config:
        """Return the recipe with hardware settings as requested, else from the earlier study, else from the table."""
        about, precision = self.table.about, recipe.hardware.precision
        if precision in (None, "auto"):
            precision = about.get("precision", precision)
        chosen = {"precision": precision, "threads": None, "workers": None}
        chosen |= {name: earlier[name] for name in ("precision", "threads") if name in earlier}
        return recipe.replace(**{**chosen, **hardware})

    def _check_images(self) -> None:
        expected, actual = self.table.about.get("data", {}).get("fingerprint"), self.experiment.source.fingerprint()
        if expected not in (None, actual):
            raise RequestError(
                f"the images of {self.experiment.source.name} are not those that table {self.table.name} was made with"
                f" (fingerprint {actual[:12]}, expected {expected[:12]}): use the original images"
            )

    def _request(self) -> dict[str, Any]:
        truth = json.dumps(self.table.column(self.table.truth)).encode()
        return {
            "format": FORMAT,
            "table": self.table.name,
            "truth": hashlib.sha256(truth).hexdigest(),
            "recipe": self.config.to_flat(),
            "precision": self.config.hardware.precision,
            "threads": self.config.hardware.threads,
            "images": self.experiment.source.fingerprint(),
        }

    def _work(self, spec: MethodSpec, budget: int, seed: int) -> Work:
        macs = self.compute.budget(budget)
        folder = self.out / "runs" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', spec.label)}-{budget}-{seed}"
        if spec.standalone:
            work = Work(spec, seed, budget, macs, self.config.replace(seed=seed), folder)
            entries.method_of(work, self.compute)  # fail early if a package is missing
            return work
        config = search_settings(spec, self.config, seed, 1)
        method = samplers.sampler(spec.method)
        method.check_size(len(self.table.space))
        if config.search.supernets is None:
            steps = self.compute.search_steps(macs, config.replace(supernets=1))
            searched = on_supernets(steps, config.search.proxy, len(self.table.space))
            config, _ = samplers.left_open(config, searched, len(self.table.space), LISTED)
        steps = self.compute.search_steps(macs, config)
        if steps < 1:
            raise RequestError(
                f"budget {budget} is too small for {spec.label}: scoring all configurations needs more; increase the budget"
            )
        config = config.replace(short=share_of(steps, config.search.proxy, len(self.table.space)))
        length: dict[str, Any] = {"steps": steps}
        if method.prefers or config.search.group > 1:  # the mean cost of its steps is known only in the end
            length = {"steps": None, "search_macs": macs - self.compute.ranking(config)}
        return Work(spec, seed, budget, macs, config.replace(**length), folder)

    @property
    def left(self) -> list[Work]:
        """Return the unfinished entries."""
        return [work for work in self.works if not work.done]

    def seconds(self) -> float:
        """Time steps on this machine and return the estimated seconds for the unfinished entries."""
        with threads_here(self.config.hardware.threads or 1):
            timing, macs = autotuning.timing(self.experiment), sum(self.compute.macs.values()) / len(self.compute.macs)
            step = timing.seconds("train", macs) + timing.seconds("score", macs) + timing.data
        count = min(self.parallel.workers, max(len(self.left), 1))
        return sum(work.budget for work in self.left) * step * (self.parallel.slowdown if count > 1 else 1.0) / count

    def plan(self) -> ComparisonPlan:
        """Return the plan of the comparison."""
        entries = [
            PlannedEntry(
                method=work.spec.label,
                seed=work.seed,
                budget=work.budget,
                macs=work.macs,
                steps=self._steps(work),
                trains="stand-alone" if work.spec.standalone else _nets(work.config),
                done=work.done,
            )
            for work in self.works
        ]
        return ComparisonPlan(
            table=self.table.name,
            methods=tuple(spec.label for spec in self.methods),
            entries=tuple(entries),
            macs=sum(work.macs for work in self.left),
            seconds=self.seconds(),
            workers=min(self.parallel.workers, max(len(self.left), 1)),
            threads=self.config.hardware.threads,
            precision=str(self.config.hardware.precision),
        )

    def _steps(self, work: Work) -> int:
        """Return the steps of a full training, or the planned steps of the search."""
        if work.spec.standalone:
            return self.compute.full_steps
        return work.config.search.steps or self.compute.search_steps(work.macs, work.config)

    def run(self, listener: Listener) -> tuple[list[Entry], list[str]]:
        """Run the unfinished entries.

        Returns:
            The rankings of all finished entries, and one line for each failed entry.

        Raises:
            Interrupted: The listener was asked to stop; finished results are kept.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with exclusive(self.out):
            return self._run(listener)

    def _run(self, listener: Listener) -> tuple[list[Entry], list[str]]:
        self._save()
        left = self.left
        total = sum(work.budget for work in self.works)
        listener.note(f"{len(left)} of {len(self.works)} entries left to train")
        listener.start("compare", total, total - sum(work.budget for work in left))
        failed = []
        with_images = self._images()
        jobs = [(work,) for work in left]
        outcomes = run_jobs(
            with_images, entries.carry_out, jobs, listener, self.parallel.workers, self.config.hardware.threads or 1
        )
        for (work,), error in outcomes:
            name = f"{work.spec.label}, budget {work.budget}, seed {work.seed}"
            if isinstance(error, PoolwiseError):
                failed.append(f"{name}: {error}")
            listener.note(f"failed: {failed[-1]}" if error else f"done: {name}")
        listener.finish()
        done = [work for work in self.works if work.done]
        return [entries.read(work, self.table.space) for work in done], failed

    def _images(self) -> Experiment:
        """Return the experiment with only the images in use, for worker processes."""
        return resolve(self.config, self.experiment.in_use, weights=self.experiment.weights)

    def _save(self) -> None:
        earlier = read_checked(self.out / REQUEST) if (self.out / REQUEST).exists() else {}
        commands, command = earlier.get("commands", []), command_line()
        commands = commands if command in commands else [*commands, command]
        value = {**self.request, "commands": commands, **environment()}
        write_atomically(self.out / REQUEST, json_text(value) + "\n")


def _nets(config: Config) -> str:
    if config.search.max_supernets == 1:
        return "one SuperNet"
    return f"{'up to ' if config.search.branching == 'measured' else ''}{config.search.max_supernets} SuperNets"


def _check_same(out: Path, earlier: dict[str, Any], request: dict[str, Any]) -> None:
    """Raise RequestError if the folder holds a study that this request cannot resume."""
    if "recipe" in earlier:  # settings added since the study began have their defaults
        earlier = {**earlier, "recipe": Config.from_flat(earlier["recipe"]).to_flat()}
    for name, value in request.items():
        if earlier and earlier.get(name) != value:
            detail = ""
            if isinstance(value, dict):
                recorded = earlier.get(name, {})
                name = next(field for field in value if value[field] != recorded.get(field))
                value, detail = value[name], " of the recipe"
                earlier = {name: recorded.get(name)}
            raise RequestError(
                f"{out} holds a comparison with another {name}{detail} ({earlier.get(name)}, now {value}): use another --out"
            )


def check_out(out: Path, table: Table) -> None:
    """Raise RequestError if the folder holds a study on another table."""
    if (out / REQUEST).exists():
        name = read_checked(out / REQUEST).get("table")
        if name != table.name:
            raise RequestError(f"{out} holds a comparison with table {name}: use another --out")
