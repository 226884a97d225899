"""A fixed partition of the configurations by where their first pooling stands."""

from __future__ import annotations

from poolwise.supernets.samplers.partition_random import Partition
from poolwise.supernets.samplers.registry import register


@register(
    "partition-first", summary="few-shot NAS: SuperNets share the configurations out by the first pooling position"
)
class FirstPartition(Partition):
    """Configurations in the order of the space, which is that of the first pooling, cut into M parts of equal size.

    Few-shot NAS (Zhao, Wang, Tian, Fonseca, Guo, ICML 2021) gives each choice of one decision a SuperNet of its own;
    here the decision is the first pooling position. Part sizes differ by 1 at most, so a cut may fall among
    configurations with one first position; those are shared out by the next positions.
    """

    def group(self, a: int) -> int:
        return a * self.supernets // self.space.size
