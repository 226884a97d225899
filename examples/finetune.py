"""Fine-tune on few images: compare a run from pretrained weights with a run from random weights.

A network is trained on six kinds of drawn figures. Its weights then initialize a run on three other kinds, with eight
images per class. In practice, use ``weights="torchvision:resnet18"`` or your file.

python examples/finetune.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

import poolwise

SIZE, STEPS = 16, 100
# lines between points of a 3x3 grid: 0 1 2 in the top row, then 3 4 5, then 6 7 8
FIGURES = {
    "first": {"corner": "0668", "vee": "0772", "bar": "35", "zed": "02266 8", "tee": "0217", "slash": "26"},
    "then": {"el": "0228", "caret": "6118", "post": "17"},
}


def draw(lines: str, generator: np.random.Generator) -> np.ndarray:
    """Draw a figure in a random color at a random place on noise."""
    picture = Image.fromarray(generator.integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8))
    pen, color = ImageDraw.Draw(picture), tuple(map(int, generator.integers(130, 256, 3)))
    x, y = map(int, generator.integers(1, 5, 2))
    points = [(x + 4 * (int(p) % 3), y + 4 * (int(p) // 3)) for p in lines.replace(" ", "")]
    for start, end in zip(points[::2], points[1::2], strict=False):
        pen.line((*start, *end), color, 1)
    return np.asarray(picture)


def pictures(figures: dict[str, str], count: int, seed: int) -> list[tuple[np.ndarray, int]]:
    generator = np.random.default_rng(seed)
    return [(draw(lines, generator), label) for _ in range(count) for label, lines in enumerate(figures.values())]


def learn(pairs: list[tuple[np.ndarray, int]], classes: int, path: Path) -> None:
    """Train resnet20 in its default configuration and save its weights."""
    model = poolwise.network("resnet20", "4-3-3", width=8, classes=classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images = torch.stack([torch.from_numpy(image.copy()) for image, _ in pairs]).permute(0, 3, 1, 2).float()
    images, labels = (images - images.mean()) / images.std(), torch.tensor([label for _, label in pairs])
    generator, model = torch.Generator().manual_seed(0), model.train()
    for _ in range(STEPS):
        chosen = torch.randint(len(labels), (32,), generator=generator)
        optimizer.zero_grad()
        loss = cross_entropy(model(images[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
    print(f"pretrained on {classes} classes: loss {loss:.2f} after {STEPS} steps")
    save_file(model.state_dict(), path)


def main() -> None:
    first, then = FIGURES["first"], FIGURES["then"]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "learned.safetensors"
        learn(pictures(first, 200, 0), len(first), weights)
        source = poolwise.dataset(
            pictures(then, 8, 1), pictures(then, 60, 2), name="figures", classes=list(then), flip=False
        )
        scratch = poolwise.preset(
            "demo", width=8, steps=72, batch_size=8, retrain_steps=40, retrain_seeds=2, precision="float32",
            norm="affine", lr=0.02, augment="none", threads=1,
        )  # fmt: skip
        mean_accuracies = {}
        for name, config in {"random": scratch, "learned": scratch.replace(weights=str(weights))}.items():
            result = poolwise.run(config, Path(folder) / name, source=source)
            for row in result["results"]:
                accuracies = ", ".join(f"{100 * accuracy:.0f} %" for accuracy in row["accuracies"])
                print(f"from {name} weights: {row['pooling']} {accuracies}")
            mean_accuracies[name] = np.mean([row["accuracies"] for row in result["results"]])
        gain = 100 * (mean_accuracies["learned"] - mean_accuracies["random"])
        print(f"gain from pretrained weights: {gain:.0f} percentage points")
        print(f"both runs used {len(source.train)} training images")


if __name__ == "__main__":
    main()
