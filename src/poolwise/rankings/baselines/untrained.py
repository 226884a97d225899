"""Zero-cost scores: what one batch of training images tells of a network with initial weights.

Every configuration runs on the same weights and the same images, so that nothing but the placement differs. Shapes:
images_BCHW, codes_BA (A activations), scores_P (P configurations of the space).
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
    """log |K| with K_ij the number of ReLUs that are on or off alike for images i and j.

    Source: Mellor et al., "Neural Architecture Search without Training" (ICML 2021), equations 1 and 2. The more linear
    regions tell the images apart, the larger it is. RequestError where the network has no ``nn.ReLU``.
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
        raise RequestError("naswot counts ReLUs and this network has none: use grad_norm")
    kernel_BB = sum((code @ code.T + (1 - code) @ (1 - code).T).double().cpu() for code in codes)
    assert isinstance(kernel_BB, Tensor)
    return float(torch.linalg.slogdet(kernel_BB).logabsdet)


def grad_norm(network: SwitchableNet, pooling: Pooling, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Sum over weight tensors of the Euclidean norm of the gradient of the loss.

    Source: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS" (ICLR 2021), section 3.1.
    """
    weights = [weight for weight in network.parameters() if weight.dim() > 1]
    loss = F.cross_entropy(network(images_BCHW, pooling), labels_B)
    return float(sum(gradient.norm() for gradient in torch.autograd.grad(loss, weights)))


UNTRAINED: dict[str, Callable[[SwitchableNet, Pooling, Tensor, Tensor], float]] = {
    "naswot": naswot,
    "grad_norm": grad_norm,
}
_PASSES = {"naswot": 1, "grad_norm": 3}  # forward passes that a score costs; a backward pass counts as two


def untrained(
    problem: Experiment, name: str, *, seed: int = 0, initialisations: int = INITIALISATIONS, images: int = IMAGES
) -> tuple[np.ndarray, int]:
    """scores_P float64 of the zero-cost score ``name`` (one of UNTRAINED), and the MACs that it took.

    The mean over ``initialisations`` draws of weights and of ``images`` training images without augmentation; BatchNorm
    uses batch statistics. All draws come from ``seed``; the global generators are not touched. Float32.
    """
    score, scores_P = UNTRAINED[name], np.zeros(len(problem.space))
    data = problem.batches(problem.training_images, images)
    for i in range(initialisations):
        streams = Streams(seed).child(f"untrained{i}")
        network = SwitchableNet(problem.build(batch_norm, "init", streams)).to(problem.device)
        drawn = streams["images"].choice(len(data.labels_N), data.batch_size, replace=False)
        images_BHWC, labels_B = data.take(torch.from_numpy(drawn).to(problem.device))
        images_BCHW = data.normalise(images_BHWC)
        scores_P += [score(network, pooling, images_BCHW, labels_B) for pooling in problem.space]
    macs = sum(problem.cost(pooling).macs for pooling in problem.space)
    return scores_P / initialisations, macs * data.batch_size * initialisations * _PASSES[name]
