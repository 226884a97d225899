"""A network of one's own: imported by tests, and written into files that the commands are given."""

from torch import nn


class Small(nn.Module):
    """A network of one's own: a stem, five blocks that keep the shape, two of them behind a pool, and a head."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(*(self.block(i) for i in range(5)))
        self.head = nn.Linear(4, classes)

    @staticmethod
    def block(i):
        layers = [nn.MaxPool2d(2)] if i in (2, 3) else []
        return nn.Sequential(*layers, nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))
