"""Your own network: any body that is a chain of blocks, no edits to it.

python examples/own_module.py
"""

import torch
from torch import nn

import poolwise


class Block(nn.Module):
    """Two depthwise convolutions around a gate; nothing that the library knows."""

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
found = poolwise.slots(net, images)
print(f"{type(net).__name__}: {found.pooling}, one of {found.space.size} placements with as many downsamplings")
with torch.no_grad():
    native = net(images)
    for pooling in list(found.space)[:: found.space.size // 4]:
        poolwise.apply(net, pooling, images)
        sizes = [slot.resolution for slot in poolwise.slots(net, images).layers]
        print(f"  {pooling}: layers see {sizes} pixels, logits {net(images)[0, :3].tolist()}")
    assert torch.equal(poolwise.apply(net, found.pooling, images)(images), native)
print(f"back at {found.pooling}: the same output to the bit")
