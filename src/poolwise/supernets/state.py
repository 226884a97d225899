"""State of a search (SuperNets, sampler, batches, random streams) and its checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolwise.experiment import Experiment
from poolwise.rng import Streams
from poolwise.sanitize import reading
from poolwise.storage import RunFolder
from poolwise.supernets import samplers
from poolwise.supernets.budget import group_step_macs, measured_macs, proxy_macs, search_steps, survey_macs
from poolwise.supernets.mixture import Job, Mixture
from poolwise.supernets.pace import Pace
from poolwise.training.profiler import Stopwatch

CHECKPOINT = "search"


class SearchState:
    """Complete state of a search, which ``save`` writes and ``restore`` reads.

    Args:
        experiment: Network, space, images and config.

    Attributes:
        step, steps: Optimizer steps so far, and in total.
        macs: MACs so far of training steps, scoring batches, branching trials and surveys.
        sampler: Draws configurations and SuperNets, and stores the scores.
        mixture: SuperNets with their optimizers and batches.
        checks: Results of the branching checks so far.
        surveys: Records of the surveys so far.
        records: Records of the steps since the last logged event.
        pace: Estimator of the remaining steps if the length of the search is given in MACs, else None.
        streams: Random streams of the search.
        watch: Seconds spent in each part of a step, for ``--profile``.
    """

    def __init__(self, experiment: Experiment):
        config = experiment.config
        self.experiment = experiment
        self.step, self.steps = 0, search_steps(experiment)
        self.macs = 0
        self.checks: list[dict[str, Any]] = []
        self.surveys: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.watch = Stopwatch(config.hardware.profile)
        self.pace: Pace | None = None
        if config.search.macs:
            reserved = proxy_macs(experiment) + measured_macs(experiment) + survey_macs(experiment, config)
            self.pace = Pace(max(config.search.macs - reserved, 1), self.steps)
        self.streams = Streams(config.seed).child("search")
        self.sampler = samplers.sampler(config.search.method)(
            samplers.Task(
                experiment.space,
                config.search.max_supernets,
                self.steps,
                (config.search.temperature_start, config.search.temperature),
                config.search.draw,
                self.streams["draw"],
                self.streams["assign"],
                config.search.warm_up,
                grows=config.search.branching == "measured",
                group=config.search.group,
            )
        )
        self.mixture = Mixture(experiment, self.streams)
        self._copied = False  # the weights of the first SuperNet, to the others, at the end of the warm-up

    @classmethod
    def open(cls, experiment: Experiment, folder: RunFolder) -> SearchState:
        """Load the state from the last checkpoint in ``folder``, or create a new state and save it there."""
        state = cls(experiment)
        if not state.restore(folder):
            state.save(folder)
        return state

    @property
    def finished(self) -> bool:
        """Whether all steps are finished."""
        return self.step >= self.steps

    def advance(self, jobs: list[Job]) -> None:
        """Count the steps of a block and their MACs, and copy the first SuperNet to the others when the warm-up ends."""
        self.step += len(jobs)
        macs = [group_step_macs(self.experiment, job.poolings) for job in jobs]
        self.macs += sum(macs)
        if self.pace:
            self._set_length(self.pace, macs)
        self._copy_first()

    def _set_length(self, pace: Pace, macs: list[int]) -> None:
        """Set the length of the search to what the remaining MACs allow."""
        reserved = sum(record["macs"] for record in [*self.checks, *self.surveys])
        self.steps = self.step + pace.steps_left(self.macs - reserved, macs)
        self.sampler.lengthen(self.steps)

    def _copy_first(self) -> None:
        """Copy weights and momenta of the first SuperNet to the others, once, if the sampler has copied its scores."""
        if self.sampler.branched and not self._copied:
            self.mixture.copy_first(1, self.sampler.supernets)
            self._copied = True

    def save(self, folder: RunFolder) -> None:
        """Write the state to one checkpoint file atomically."""
        meta = {
            "step": self.step,
            "macs": self.macs,
            "sampler": self.sampler.state(),
            "streams": self.streams.state(),
            "training": self.mixture.training.state(),
            "scoring": self.mixture.scoring.state(),
            "window": self.records,
            "pace": list(self.pace.last) if self.pace else [],
            "checks": self.checks,
            **({"surveys": self.surveys} if self.surveys else {}),
            "profile": self.watch.seconds,
        }
        folder.save_checkpoint(CHECKPOINT, self._tensors(), meta, keep=True)

    def restore(self, folder: RunFolder) -> bool:
        """Restore the state that ``save`` wrote. Return False if there is no checkpoint.

        Raises:
            RequestError: If the checkpoint is damaged or belongs to another network.
        """
        loaded = folder.load_checkpoint(CHECKPOINT)
        if loaded is None:
            return False
        with reading(f"the checkpoint of the search in {folder.path}", "remove it to start the search again"):
            self._load(*loaded)
        return True

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for m, (network, momenta) in enumerate(zip(self.mixture.networks, self.mixture.momenta(), strict=True)):
            for (name, parameter), momentum in zip(network.named_parameters(), momenta, strict=True):
                tensors[f"{m}.weight.{name}"] = parameter
                tensors[f"{m}.momentum.{name}"] = momentum
        return tensors

    @torch.no_grad()
    def _load(self, saved: dict[str, Tensor], meta: dict[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            if saved[name].shape != tensor.shape:
                raise ValueError(f"{name} has an unexpected shape")
            tensor.copy_(saved[name])
        self.step, self.macs, self.checks = int(meta["step"]), int(meta["macs"]), list(meta.get("checks", []))
        self.surveys = list(meta.get("surveys", []))
        self.sampler.restore(meta["sampler"])
        self._copied = self.sampler.branched
        self.streams.restore(meta["streams"])
        self.mixture.training.restore(meta["training"])
        self.mixture.scoring.restore(meta["scoring"])
        self.records = list(meta["window"])
        if self.pace and self.step:
            self._set_length(self.pace, meta["pace"])
            self._copy_first()  # earlier versions could miss the end of the warm-up
        self.watch.seconds = dict(meta["profile"])
