"""Zero-cost proxies: scores from untrained networks and one batch of training images.

All configurations use the same weights and the same images, so only the downsampling differs. Shapes: images_BCHW,
codes_BA (A activations), scores_P (P configurations of the space).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.experiment import Experiment
from poolwise.models.chain import batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.rng import Streams
from poolwise.spaces import Pooling

INITIALISATIONS = 3
IMAGES = 64


def naswot(network: SwitchableNet, pooling: Pooling, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Return log |det K|, where K_ij is the number of ReLU units with equal on/off states for images i and j.

    It is larger the better the linear regions of the network separate the images. Source: Mellor et al., "Neural
    Architecture Search without Training" (ICML 2021), equations 1 and 2.

    Raises:
        RequestError: If the network has no ``nn.ReLU``.
    """
    codes: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        codes.append((output > 0).flatten(1).float())

    handles = [m.register_forward_hook(keep) for m in network.modules() if isinstance(m, nn.ReLU)]
    try:
        with torch.no_grad():
            network(images_BCHW, pooling)
    finally:
        for handle in handles:
            handle.remove()
    if not codes:
        raise RequestError("naswot needs a network with ReLUs and this one has none: use grad_norm")
    kernel_BB = sum((code @ code.T + (1 - code) @ (1 - code).T).double().cpu() for code in codes)
    assert isinstance(kernel_BB, Tensor)
    return float(torch.linalg.slogdet(kernel_BB).logabsdet)


def grad_norm(network: SwitchableNet, pooling: Pooling, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Return the sum over weight tensors of the Euclidean norm of the gradient of the loss.

    Source: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS" (ICLR 2021), section 3.1.
    """
    weights = [weight for weight in network.parameters() if weight.dim() > 1]
    loss = F.cross_entropy(network(images_BCHW, pooling), labels_B)
    return float(sum(gradient.norm() for gradient in torch.autograd.grad(loss, weights)))


UNTRAINED: dict[str, Callable[[SwitchableNet, Pooling, Tensor, Tensor], float]] = {
    "naswot": naswot,
    "grad_norm": grad_norm,
}
_PASSES = {"naswot": 1, "grad_norm": 3}  # cost of a score in forward passes; a backward pass counts as two


def untrained(
    experiment: Experiment, name: str, *, seed: int = 0, initialisations: int = INITIALISATIONS, images: int = IMAGES
) -> tuple[np.ndarray, int]:
    """Return scores_P (float64) of a zero-cost proxy, and the MACs that it took.

    Networks run in float32, BatchNorm uses batch statistics, and images are not augmented.

    Args:
        experiment: Experiment with the space, the network and the images.
        name: A key of UNTRAINED.
        seed: Seed of all draws. Global generators are not used.
        initialisations: Number of draws of weights and images; scores are means over them.
        images: Training images per draw.
    """
    score, scores_P = UNTRAINED[name], np.zeros(len(experiment.space))
    data = experiment.batches(experiment.training_images, images)
    for i in range(initialisations):
        streams = Streams(seed).child(f"untrained{i}")
        network = SwitchableNet(experiment.build(batch_norm, "init", streams)).to(experiment.device)
        drawn = streams["images"].choice(len(data.labels_N), data.batch_size, replace=False)
        images_BHWC, labels_B = data.take(torch.from_numpy(drawn).to(experiment.device))
        images_BCHW = data.normalize(images_BHWC)
        scores_P += [score(network, pooling, images_BCHW, labels_B) for pooling in experiment.space]
    macs = sum(experiment.cost(pooling).macs for pooling in experiment.space)
    return scores_P / initialisations, macs * data.batch_size * initialisations * _PASSES[name]
