"""The search: SuperNets, sampler and batches in one state, and the loop over the six steps of the method."""

from __future__ import annotations

import time
from typing import Any

import torch

from poolwise.images.batches import Shuffled
from poolwise.networks.chain import batch_norm
from poolwise.networks.switch import SwitchableNet
from poolwise.problem import Problem
from poolwise.progress import Interrupted, Listener
from poolwise.rng import Streams
from poolwise.runs import RunFolder
from poolwise.searching import samplers
from poolwise.space import Pooling
from poolwise.training import LossNotFinite, correct, cosine, sgd, train_step

CHECKPOINT = "search"
CHECKPOINT_SECONDS = 120.0
_LOGS, _SNAPSHOTS = 200, 40  # events in a whole search
_SNAPSHOT_CONFIGURATIONS = 1000  # larger spaces have no snapshots of the assignment


class SearchState:
    """Everything that a search is at one moment; ``save`` and ``restore`` make it last."""

    def __init__(self, problem: Problem):
        settings, self.problem, self.step = problem.settings, problem, 0
        self.window = _Window()
        self.steps = problem.search_steps
        self.streams = Streams(settings.seed).child("search")
        self.sampler = samplers.sampler(settings.method)(
            samplers.Task(
                problem.space,
                settings.supernets,
                self.steps,
                (settings.temperature_start, settings.temperature),
                settings.draw,
                self.streams["draw"],
                self.streams["assign"],
                settings.warm_up,
            )
        )
        self.precision = problem.precision
        self.networks: list[SwitchableNet] = []
        for m in range(self.sampler.supernets):
            network = SwitchableNet(problem.build(batch_norm, f"init{m}", self.streams))
            self.precision.place(network, problem.device)
            self.networks.append(network)
        self.optimizers = [sgd(n, settings.lr, settings.momentum, settings.weight_decay) for n in self.networks]
        training, scoring = (problem.batches(half, settings.batch_size) for half in problem.halves)
        self.training = Shuffled(training, self.streams["order"], (problem.augmentation, self.streams["augment"]))
        self.scoring = Shuffled(scoring, self.streams["score_order"])

    def lr(self) -> float:
        return cosine(self.step, self.steps, self.problem.settings.lr, self.problem.settings.lr_end)

    def save(self, folder: RunFolder) -> None:
        """Write everything into one atomic file."""
        tensors = {}
        for m, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            for name, parameter in network.named_parameters():
                tensors[f"{m}.weight.{name}"] = parameter
                if "momentum_buffer" in optimizer.state.get(parameter, {}):
                    tensors[f"{m}.momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"]
        meta = {
            "step": self.step,
            "sampler": self.sampler.state(),
            "streams": self.streams.state(),
            "training": self.training.state(),
            "scoring": self.scoring.state(),
            "window": self.window.items,
        }
        folder.save_checkpoint(CHECKPOINT, tensors, meta)

    def restore(self, folder: RunFolder) -> bool:
        """Go back to what ``save`` wrote; False where there is nothing yet."""
        loaded = folder.load_checkpoint(CHECKPOINT)
        if loaded is None:
            return False
        tensors, meta = loaded
        with torch.no_grad():
            for m, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
                for name, parameter in network.named_parameters():
                    parameter.copy_(tensors[f"{m}.weight.{name}"])
                    momentum = tensors.get(f"{m}.momentum.{name}")
                    if momentum is not None:
                        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self.step = int(meta["step"])
        self.sampler.restore(meta["sampler"])
        self.streams.restore(meta["streams"])
        self.training.restore(meta["training"])
        self.scoring.restore(meta["scoring"])
        self.window.items = list(meta["window"])
        return True

    def advance(self) -> dict[str, Any]:
        """Steps 1 to 5 of the method, once. Returns what happened."""
        lr, temperature = self.lr(), self.sampler.temperature
        pooling, m = self.sampler.ask()
        network = self.networks[m]
        try:
            loss = train_step(
                lambda images: network(images, pooling), self.optimizers[m], *self.training.next(), lr, self.precision
            )
        except LossNotFinite as error:
            raise self._not_finite(error, pooling, m, lr) from None
        images_BCHW, labels_B = self.scoring.next()
        accuracy = correct(lambda images: network(images, pooling), images_BCHW, labels_B, self.precision) / len(
            labels_B
        )
        self.sampler.tell(pooling, m, accuracy)
        self.step += 1
        return {"loss": loss, "accuracy": accuracy, "lr": lr, "temperature": temperature, "supernet": m}

    def _not_finite(self, error: LossNotFinite, pooling: Pooling, m: int, lr: float) -> LossNotFinite:
        return LossNotFinite(
            f"search stopped at step {self.step + 1} of {self.steps}: {error}, configuration {pooling}, SuperNet {m + 1},"
            f" learning rate {lr:.4g}. The last checkpoint is kept; start anew with a smaller --lr"
        )


def search(problem: Problem, folder: RunFolder, listener: Listener) -> SearchState:
    """Train the mixture from the last checkpoint (or from scratch) to the end. Raises Interrupted when asked to stop."""
    state = SearchState(problem)
    if not state.restore(folder):
        state.save(folder)
    for kind in ("search", "assignment"):
        folder.forget_events(kind, state.step + 1)
    listener.start("search", state.steps, state.step)
    saved, window = time.monotonic(), state.window
    try:
        while state.step < state.steps:
            listener.check()
            window.add(state.advance())
            _log(folder, state, window)
            listener.advance(best=_leaders(state) if state.step % 20 == 0 else None, **window.last)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                state.save(folder)
                saved = time.monotonic()
    except Interrupted:
        state.save(folder)
        raise
    state.save(folder)
    listener.finish()
    return state


class _Window:
    """Means since the last event."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}

    def add(self, item: dict[str, Any]) -> None:
        self.items.append(item)
        self.last = item

    def means(self) -> dict[str, float]:
        names = ("loss", "accuracy")
        means = {name: sum(item[name] for item in self.items) / len(self.items) for name in names}
        self.items = []
        return means


def _log(folder: RunFolder, state: SearchState, window: _Window) -> None:
    step, steps = state.step, state.steps
    log_every, snapshot_every = max(steps // _LOGS, 1), max(steps // _SNAPSHOTS, 1)
    if step % log_every and step != steps and step % snapshot_every:
        return
    if step % log_every == 0 or step == steps:
        event = {**window.means(), "lr": window.last["lr"], **state.sampler.summary()}
        folder.log({"event": "search", "step": step, **event})
    space = state.problem.space
    if space.size <= _SNAPSHOT_CONFIGURATIONS and (step % snapshot_every == 0 or step == steps):
        assignment_PM = state.sampler.assignment_of(list(space))
        folder.log({"event": "assignment", "step": step, "assignment": assignment_PM.round(4).tolist()})


def _leaders(state: SearchState) -> list[tuple[str, float]]:
    """Five configurations with the highest moving average on their most probable SuperNet, told as they stand now."""
    return [(str(pooling), score) for pooling, score in state.sampler.leaders(5)]
