"""Move the downsamplings of your own network without editing its code. Its body must be a chain of blocks.

python examples/own_module.py
"""

import torch
from torch import nn

import poolwise


class Block(nn.Module):
    """A custom block that the library does not know: a depthwise convolution and a gate."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + torch.sigmoid(self.gate(features)) * self.mix(features)


class Net(nn.Module):
    """A stem, six blocks with two pools between them, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        blocks = [Block(16) for _ in range(6)]
        self.body = nn.Sequential(*blocks[:2], nn.MaxPool2d(2), *blocks[2:4], nn.MaxPool2d(2), *blocks[4:])
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(images)).mean((2, 3)))


torch.manual_seed(0)
net, images = Net().eval(), torch.randn(2, 3, 32, 32)
slots = poolwise.slots(net, images)
print(
    f"{type(net).__name__}: {slots.pooling}, one of {slots.space.size} configurations with the same number of downsamplings"
)
with torch.no_grad():
    native = net(images)
    for pooling in list(slots.space)[:: slots.space.size // 4]:
        poolwise.apply(net, pooling, images)
        sizes = [slot.resolution for slot in poolwise.slots(net, images).layers]
        print(f"  {pooling}: layer inputs have {sizes} pixels, logits {net(images)[0, :3].tolist()}")
    assert torch.equal(poolwise.apply(net, slots.pooling, images)(images), native)
print(f"back to {slots.pooling}: the output is bitwise equal")
