"""A run that takes a second."""

from conftest import draw_images
from poolwise.config import Config
from poolwise.datasets.sources import Source

SOURCE = Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))
SETTINGS = Config.from_flat(
    width=2, supernets=2, steps=10, batch_size=16, eval_batch_size=24, retrain_steps=4, retrain_seeds=1, lr=0.05,
    draw="rounds", precision="float32", device="cpu", workers=1, threads=1,
)  # fmt: skip
