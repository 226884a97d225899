"""A fixed partition of the configurations by their first pooling position."""

from __future__ import annotations

from poolwise.supernets.samplers.partition_random import Partition
from poolwise.supernets.samplers.registry import register


@register(
    "partition-first", summary="few-shot NAS: configurations are divided among SuperNets by the first pooling position"
)
class FirstPartition(Partition):
    """Partition the space, which is ordered by the first pooling position, into M contiguous parts of equal size.

    Few-shot NAS (Zhao, Wang, Tian, Fonseca, Guo, ICML 2021) trains one SuperNet for each option of one decision; here the
    decision is the first pooling position. Part sizes differ by at most 1, so configurations with the same first position
    may be split between two parts; they are then split by their next positions.
    """

    def group(self, a: int) -> int:
        return a * self.supernets // self.space.size
