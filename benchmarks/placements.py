"""Plot the stand-alone accuracy of all 36 configurations of ResNet20's two poolings on CIFAR-10.

Reads the tables in the package, the published one and our own, and writes ``docs/placements.svg``.

    python benchmarks/placements.py
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolwise import tables
from poolwise.storage.tables import Table

TARGET = Path(__file__).parents[1] / "docs" / "placements.svg"
TITLES = {
    "resnet20-cifar10-published": "published: full width, all images, 5 seeds",
    "resnet20w8-cifar10-10k": "ours: width 8, 10,000 images, 12 epochs",
}


def draw(axes: Axes, table: Table) -> None:
    """Draw accuracy over the two positions, with the default and the best configuration framed."""
    accuracy = np.asarray(table.column(table.truth))
    grid = np.full((8, 8), np.nan)
    for pooling, value in zip(table.space, accuracy, strict=True):
        first, second = pooling.positions
        grid[first - 1, second - 2] = value
        ink = "black" if value > np.quantile(accuracy, 0.6) else "white"
        axes.text(second - 2, first - 1, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=9)
    shown = axes.imshow(grid, origin="lower", cmap="viridis", aspect="auto")
    default, best = table.space.parse("4-3-3"), table.space[int(np.argmax(accuracy))]
    for pooling, colour, text in ((default, "#60a5fa", "default"), (best, "#f97316", "best")):
        first, second = pooling.positions
        frame = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 3}
        axes.plot(second - 2, first - 1, "s", markersize=30, **frame)
        value = accuracy[table.space.index(pooling)]
        axes.plot([], [], "s", color=colour, label=f"{text} {pooling}: {value:.1f}")
        print(f"{table.name}: {text} {pooling} {value:.2f}")
    axes.set_xticks(range(8), [str(i) for i in range(3, 11)])
    axes.set_yticks(range(8), [str(i) for i in range(2, 10)])
    axes.set(xlabel="second pooling stands before layer", ylabel="first pooling stands before layer")
    axes.set_title(TITLES[table.name], fontsize=11)
    axes.legend(loc="upper left", frameon=False)
    axes.figure.colorbar(shown, ax=axes, label="test accuracy, %")


def main() -> None:
    available = [tables.load(name) for name in TITLES if name in tables.names()]
    figure = Figure(figsize=(6.6 * len(available), 5), layout="constrained")
    for axes, table in zip(np.atleast_1d(figure.subplots(1, len(available))), available, strict=True):
        draw(axes, table)
    with matplotlib.rc_context({"svg.hashsalt": TARGET.stem}):  # the same picture has the same bytes
        figure.savefig(TARGET, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
