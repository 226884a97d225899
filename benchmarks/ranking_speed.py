"""Compare ranking by shared prefixes with ranking one configuration after the other, on three spaces, with identical counts.

Each repeat times both on the same batch and network, in turns, in float32 and in the fastest precision of the machine.

    python benchmarks/ranking_speed.py --repeats 5
"""

from __future__ import annotations

import time

import click
import torch
from common import record, spread

from poolwise.models import family
from poolwise.models.chain import batch_norm, create
from poolwise.models.cost import CostModel
from poolwise.models.supernet import SwitchableNet
from poolwise.rng import Streams
from poolwise.spaces import Pooling
from poolwise.training import Precision, correct, count_correct
from poolwise.training.calibration import cpu_threads
from poolwise.training.workers import keep_memory

CASES = (("resnet20", 16, 128), ("resnet18", 16, 64), ("resnet50", 8, 32))  # family, width, batch


def one_by_one(
    network: SwitchableNet, poolings: list[Pooling], images: torch.Tensor, labels: torch.Tensor, precision: Precision
) -> list[int]:
    """Count correct predictions with one forward pass per configuration."""
    passes = [correct(lambda x, p=pooling: network(x, p), images, labels, precision) for pooling in poolings]
    return torch.stack(passes).tolist()


@click.command()
@click.option("--repeats", default=5, show_default=True)
@click.option("--precisions", default="float32+channels_last,bfloat16+channels_last", show_default=True)
def main(repeats: int, precisions: str) -> None:
    keep_memory()
    rows = []
    for name, width, batch in CASES:
        known = family(name)
        chain = create(known.build, Streams(0).torch("init"), classes=10, width=width, norm=batch_norm)
        cost, poolings = CostModel(chain, 32, known.default), list(known.space)
        saved = sum(cost(pooling).macs for pooling in poolings) / cost.prefix_macs(poolings)
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(batch) % 10
        for text in precisions.split(","):
            precision, network = Precision.parse(text), SwitchableNet(chain)
            precision.place(network, torch.device("cpu"))

            arguments = (network, poolings, images, labels, precision)
            assert count_correct(*arguments) == one_by_one(*arguments), (
                "both ways must give the same counts in every precision"
            )
            ratios, seconds = [], []
            for _ in range(repeats):
                times = []
                for call in (one_by_one, count_correct):
                    started = time.perf_counter()
                    call(*arguments)
                    times.append(time.perf_counter() - started)
                ratios.append(times[0] / times[1])
                seconds.append(times[1])
            row = {"family": name, "configurations": len(poolings), "width": width, "batch": batch, "precision": text}
            row |= {"threads": cpu_threads(), "repeats": repeats, "fewer MACs": round(saved, 3)}
            ratio = spread(ratios)
            row |= {"what": "one by one / shared, time", **ratio}
            row |= {
                "share of what MACs promise": round(ratio["median"] / saved, 3),
                "ms a batch": round(1000 * min(seconds), 1),
            }
            rows.append(row)
            click.echo(row)
    record("ranking-speed", rows)


if __name__ == "__main__":
    main()
