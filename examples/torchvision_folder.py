"""A folder of images: where should a small ResNet downsample on it?

Draws a folder of the layout that torchvision's ImageFolder reads (train and val, one subfolder a class), searches on it and
retrains the pick beside the default, all through the API. In earnest: your own folder, more steps, a wider network.

python examples/torchvision_folder.py
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import poolwise

CLASSES = ("circle", "cross", "stripes")


def draw(name: str, generator: np.random.Generator) -> Image.Image:
    """One picture of a class: its figure somewhere, in some colour, on noise."""
    noise = generator.integers(0, 90, (24, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    pen, colour = ImageDraw.Draw(picture), tuple(map(int, generator.integers(120, 256, 3)))
    x, y = map(int, generator.integers(2, 9, 2))
    if name == "circle":
        pen.ellipse((x, y, x + 12, y + 12), outline=colour, width=2)
    elif name == "cross":
        pen.line((x, y, x + 12, y + 12), colour, 2)
        pen.line((x, y + 12, x + 12, y), colour, 2)
    else:
        for row in range(y, y + 13, 4):
            pen.line((x, row, x + 12, row), colour, 2)
    return picture


def make_folder(root: Path) -> None:
    """60 training and 20 validation images a class."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("val", 20)):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                draw(name, generator).save(root / part / name / f"{i}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "figures"
        make_folder(root)
        # the folder as it is, streamed from disk, with a transform of torchvision's in place of crops and mirrors
        source = poolwise.source(f"folder:{root}", image_size=16, stream="on", augment=v2.RandomRotation(10))
        # the same images through a data set of torchvision's; so would any of your own
        same = poolwise.dataset(ImageFolder(root / "train"), ImageFolder(root / "val"), image_size=16)
        assert same.fingerprint() == source.fingerprint()
        print(
            f"{len(source.train)} training and {len(source.test)} test images of {', '.join(source.classes)}; {source.note}"
        )

        config = poolwise.preset(
            "demo", width=4, steps=72, batch_size=32, retrain_steps=30, retrain_seeds=2, precision="float32"
        )
        result = poolwise.run(config, Path(folder) / "run", source=source)
        for role in result["results"]:
            print(role["pooling"], [f"{100 * accuracy:.0f} %" for accuracy in role["accuracies"]])
        print(f"pick and default retrained on {len(source.train)} images")


if __name__ == "__main__":
    main()
