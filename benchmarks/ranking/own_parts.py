"""Measure what one SuperNet gains from parts that configurations do not share: scales and shifts of norms, and the head.

Fair rounds on one SuperNet, in the setting of a study's entry. ``norm`` selects which configurations share scales and shifts:
all with the same number of downsamplings so far (``depth``, as ``--norm affine`` does), all with the same downsamplings so far
(``prefix``), or none (``configuration``). ``head`` selects whether the last linear layer is shared (``common``) or not (``own``).
Existing results in ``--out`` are reused; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/own_parts.py \
        benchmarks/results/samplers-own-table/runs/fairnas_norm_affine-1560-0 --out runs/own-parts
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Hashable
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record
from tricks import TABLE, Trick, judged, runner

from poolwise import tables
from poolwise.config import Config
from poolwise.experiment import resolve
from poolwise.models.chain import Chain, affine_norm
from poolwise.models.sharing import without_norms
from poolwise.rng import Streams
from poolwise.spaces import Pooling
from poolwise.storage import write_atomically
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train_block
from poolwise.training import correct, sgd

FORMS = ("prefix,common", "configuration,common", "configuration,own")


class PartlySharedNet(nn.Module):
    """A SuperNet with max-pools that shares norms and head as ``norm`` and ``head`` select, and all other weights."""

    def __init__(self, chain: Chain, poolings: list[Pooling], norm: str, head: str):
        super().__init__()
        self.norm, self.layers, self.heads = norm, nn.ModuleList(), nn.ModuleDict()
        for i, layer in enumerate(chain.layers):
            shared = {id(part): part for part in without_norms(layer)}
            keys = dict.fromkeys(self.key(pooling, i) for pooling in poolings)
            self.layers.append(nn.ModuleDict({str(key): copy.deepcopy(layer, dict(shared)) for key in keys}))
        for pooling in poolings:
            self.heads[str(pooling)] = copy.deepcopy(chain.head) if head == "own" else chain.head

    def key(self, pooling: Pooling, i: int) -> Hashable:
        depths = tuple(pooling.depths())
        return {"depth": depths[i], "prefix": depths[: i + 1], "configuration": str(pooling)}[self.norm]

    def forward(self, images_BCHW: Tensor, pooling: Pooling) -> Tensor:
        depths = (0, *pooling.depths())
        for i, layers in enumerate(self.layers):
            for _ in range(depths[i + 1] - depths[i]):
                images_BCHW = F.max_pool2d(images_BCHW, 2)
            assert isinstance(layers, nn.ModuleDict)
            images_BCHW = layers[str(self.key(pooling, i))](images_BCHW)
        return self.heads[str(pooling)](images_BCHW)


def search(config: Config, norm: str, head: str) -> list[float]:
    """Return score_P in percent on the full scoring half after one search."""
    experiment = resolve(config)
    state, poolings = SearchState(experiment), list(experiment.space)
    nets = state.mixture
    network = PartlySharedNet(experiment.build(affine_norm, "init0", Streams(config.seed)), poolings, norm, head)
    nets.precision.place(network, experiment.device)
    network.train()
    nets.networks = [network]
    nets.optimizers = [sgd(network, config.training.lr, config.training.momentum, config.training.weight_decay)]
    run = runner(state, Trick(experiment))
    while state.step < state.steps:
        train_block(state, run)
    right = np.zeros(len(poolings))
    with torch.no_grad():
        for images_BCHW, labels_B in experiment.ranking_batches().ordered():
            for a, pooling in enumerate(poolings):
                right[a] += float(
                    correct(lambda images: network(images, pooling), images_BCHW, labels_B, nets.precision)  # noqa: B023
                )
    return (100 * right / len(experiment.halves[1])).tolist()


@click.command()
@click.argument("entry", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="runs/own-parts", show_default=True, type=click.Path(path_type=Path))
@click.option("--forms", default=";".join(FORMS), show_default=True, help="NORM,HEAD;...")
@click.option("--seeds", default=3, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(entry: Path, out: Path, forms: str, seeds: int, first_seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    table = tables.load(TABLE)
    config = Config.from_flat(json.loads((entry / "run.json").read_text(encoding="utf-8"))["settings"])
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(first_seed, first_seed + seeds):
        for form in forms.split(";"):
            norm, head = form.split(",")
            file = out / f"{norm}-{head}-{config.search.steps}-{seed}.json"
            if not file.exists():
                write_atomically(file, json.dumps(search(config.replace(seed=seed), norm, head)) + "\n")
            scores_P = json.loads(file.read_text(encoding="utf-8"))
            rows.append({"norm": norm, "head": head, "seed": seed, **judged(table, scores_P)})
            click.echo(rows[-1])
    record(f"own-parts-{config.search.steps}-{TABLE}", rows)


if __name__ == "__main__":
    main()
