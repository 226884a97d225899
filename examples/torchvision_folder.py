"""Search where a small ResNet should downsample on a folder of images.

Draws a folder in the layout of torchvision's ImageFolder (train and val, one subfolder per class), searches on it and
retrains the pick and the default. In practice, use your own folder, more steps and a wider network.

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
    """Draw the figure of a class in a random color at a random place on noise."""
    noise = generator.integers(0, 90, (24, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    pen, color = ImageDraw.Draw(picture), tuple(map(int, generator.integers(120, 256, 3)))
    x, y = map(int, generator.integers(2, 9, 2))
    if name == "circle":
        pen.ellipse((x, y, x + 12, y + 12), outline=color, width=2)
    elif name == "cross":
        pen.line((x, y, x + 12, y + 12), color, 2)
        pen.line((x, y + 12, x + 12, y), color, 2)
    else:
        for row in range(y, y + 13, 4):
            pen.line((x, row, x + 12, row), color, 2)
    return picture


def make_folder(root: Path) -> None:
    """Write 60 training and 20 validation images per class."""
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
        # stream the images from disk and replace the default augmentation by a torchvision transform
        source = poolwise.source(f"folder:{root}", image_size=16, stream="on", augment=v2.RandomRotation(10))
        # the same images as a torchvision data set; any other data set works in the same way
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
        print(f"retrained the pick and the default on {len(source.train)} images")


if __name__ == "__main__":
    main()
