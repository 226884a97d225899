import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from poolwise.errors import RequestError
from poolwise.networks import family
from poolwise.networks.chain import create, running_norm
from poolwise.networks.cost import CostModel
from poolwise.networks.switch import SwitchableNet, export
from poolwise.networks.walk import walk


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:densenet121", "timm:efficientnet_b0"])
def test_switched_exported_walked_and_priced(name):
    known = family(name)
    chain = create(known.build, torch.Generator().manual_seed(0), classes=4, width=None, norm=running_norm)
    network, price = SwitchableNet(chain).eval(), CostModel(chain, 64, known.default)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    poolings = [known.default, known.space[0], known.space[len(known.space) - 1]]
    with torch.no_grad():
        walked = {m: logits for own, logits in walk(network, poolings, images) for m in own}
        for i, pooling in enumerate(poolings):
            with FlopCounterMode(display=False) as counter:
                logits = export(network, pooling)(images)
            assert torch.equal(network(images, pooling), logits)
            assert torch.equal(walked[i], logits)
            assert price(pooling).macs == counter.get_total_flops() // 4


def test_a_transformer_is_refused():
    with pytest.raises(RequestError):
        family("torchvision:vit_b_16")
