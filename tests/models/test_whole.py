"""External networks as families: bitwise equal outputs, costs, and complete runs."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import poolwise
from own_network import Small
from poolwise.errors import RequestError
from poolwise.models import family
from poolwise.models.chain import create, running_norm
from poolwise.models.cost import CostModel
from poolwise.models.prefixes import walk
from poolwise.models.supernet import SwitchableNet, plain_model


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:densenet121", "timm:efficientnet_b0"])
def test_supernet_export_prefix_walk_and_costs_agree(name):
    known = family(name)
    chain = create(known.build, torch.Generator().manual_seed(0), classes=4, width=None, norm=running_norm)
    network, price = SwitchableNet(chain).eval(), CostModel(chain, 64, known.default)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    poolings = [known.default, known.space[0], known.space[len(known.space) - 1]]
    with torch.no_grad():
        walked = {m: logits for members, logits in walk(network, poolings, images) for m in members}
        for i, pooling in enumerate(poolings):
            with FlopCounterMode(display=False) as counter:
                logits = plain_model(network, pooling)(images)
            assert torch.equal(network(images, pooling), logits)
            assert torch.equal(walked[i], logits)
            assert price(pooling).macs == counter.get_total_flops() // 4


def test_a_transformer_is_refused():
    with pytest.raises(RequestError):
        family("torchvision:vit_b_16")


@pytest.mark.slow
def test_a_custom_network_gives_the_same_run_with_one_and_two_workers(tmp_path, tiny_settings, tiny_source):
    model, outcomes = poolwise.backbone("small", Small), []
    for workers in (1, 2):
        config = tiny_settings.replace(
            model=model, width=None, supernets=2, retrain_seeds=1, threads=1, workers=workers
        )
        run = tmp_path / str(workers)
        poolwise.run(config, run, source=tiny_source)
        documents = [json.loads((run / f"{name}.json").read_text()) for name in ("ranking", "retrain")]
        outcomes.append(([(row["pooling"], row["score"]) for row in documents[0]["ranking"]], documents[1]["results"]))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0][0]) > 3
    best = outcomes[0][1][0]["pooling"]
    trained = poolwise.model(tmp_path / "1", best)
    assert isinstance(trained, Small)
    assert trained(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_a_network_that_cannot_be_pickled_raises_one_line(tmp_path, tiny_settings, tiny_source):
    model = poolwise.backbone("closed", lambda classes: Small(classes))
    config = tiny_settings.replace(model=model, width=None, supernets=2, threads=1, workers=2)
    with pytest.raises(RequestError, match="own:closed cannot be sent to worker processes"):
        poolwise.run(config, tmp_path / "run", source=tiny_source)
