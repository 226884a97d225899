"""SuperNets with their optimizers and batches."""

import torch

from poolwise.config import Config
from poolwise.experiment import resolve
from poolwise.rng import Streams
from poolwise.supernets.mixture import Job, Mixture


def test_a_block_equals_its_jobs_one_by_one(tiny_source):
    config = Config.from_flat(width=4, supernets=3, steps=8, batch_size=16, device="cpu", precision="float32")
    experiment, runs = resolve(config, tiny_source), []
    for block in (8, 3, 1):
        mixture = Mixture(experiment, Streams(0))
        jobs = [
            Job((experiment.space[i],), i % 3, 0.1, mixture.training.draw(), mixture.scoring.draw()) for i in range(8)
        ]
        results = [result for i in range(0, 8, block) for result in mixture.train_and_score(jobs[i : i + block])]
        tensors = [
            *(p.detach() for net in mixture.networks for p in net.parameters()),
            *(buffer for buffers in mixture.momenta() for buffer in buffers),
        ]
        runs.append((results, tensors))
    for results, tensors in runs[1:]:
        assert results == runs[0][0]
        assert all(torch.equal(one, other) for one, other in zip(runs[0][1], tensors, strict=True))
    assert all(0 <= result.accuracy <= 1 < 1 + result.loss for result in runs[0][0])
