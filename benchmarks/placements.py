"""The question in a picture: stand-alone accuracy of all 36 placements of ResNet20's two poolings on CIFAR-10.

Reads the published table that comes with the package and writes ``docs/placements.svg``.

    python benchmarks/placements.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from poolwise import Pooling, tables

TARGET = Path(__file__).parents[1] / "docs" / "placements.svg"


def main() -> None:
    table = tables.load("resnet20-cifar10-published")
    accuracy = table.column("standalone_mean")
    grid = np.full((8, 8), np.nan)
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for pooling, value in zip(table.space, accuracy, strict=True):
        first, second = pooling.positions
        grid[first - 1, second - 2] = value
        ink = "black" if value > 90.7 else "white"
        axes.text(second - 2, first - 1, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=9)
    shown = axes.imshow(grid, origin="lower", cmap="viridis", aspect="auto")
    best = table.space[int(np.argmax(accuracy))]
    for pooling, colour, text in (
        (Pooling.parse("4-3-3"), "#60a5fa", "default 4-3-3"),
        (best, "#f97316", f"best {best}"),
    ):
        first, second = pooling.positions
        axes.plot(
            second - 2, first - 1, "s", markersize=34, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=3
        )
        axes.plot([], [], "s", color=colour, label=text)
    axes.set_xticks(range(8), [str(i) for i in range(3, 11)])
    axes.set_yticks(range(8), [str(i) for i in range(2, 10)])
    axes.set(xlabel="second pooling stands before layer", ylabel="first pooling stands before layer")
    axes.legend(loc="upper left", frameon=False)
    figure.colorbar(shown, ax=axes, label="test accuracy, %")
    figure.savefig(TARGET, metadata={"Date": None, "Creator": None})
    print(f"wrote {TARGET}: default {accuracy[table.space.index('4-3-3')]}, best {best} {max(accuracy)}")


if __name__ == "__main__":
    main()
