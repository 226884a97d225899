"""Networks of other libraries by name: ``torchvision:resnet18``, ``timm:resnet26d``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from poolwise.errors import RequestError, did_you_mean

LIBRARIES = ("torchvision", "timm")


def is_other(name: str) -> bool:
    """Whether a model's name says that it is another library's."""
    library, colon, _ = name.partition(":")
    return bool(colon) and library in LIBRARIES


def build(name: str, classes: int | None = None) -> nn.Module:
    """The network with its library's own initial weights; nothing is downloaded.

    Args:
        name: library and model, with a colon between them.
        classes: of the head; the library's default where it is None.

    Raises RequestError for an unknown model and where timm is not installed.
    """
    library, _, model = name.partition(":")
    known, create = _torchvision() if library == "torchvision" else _timm()
    if model not in known:
        raise RequestError(
            f"{library} has no model {model[:60]!r}{did_you_mean(model, known)}. It has {len(known)} models"
        )
    return create(model, {} if classes is None else {"num_classes": classes})


def _torchvision() -> tuple[list[str], Callable[[str, dict[str, Any]], nn.Module]]:
    from torchvision import models

    def create(model: str, arguments: dict[str, Any]) -> nn.Module:
        extra = {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
        return models.get_model(model, weights=None, **extra, **arguments)

    return models.list_models(module=models), create


def _timm() -> tuple[list[str], Callable[[str, dict[str, Any]], nn.Module]]:
    try:
        import timm
    except ImportError as error:
        raise RequestError("models of timm need the package timm: pip install 'poolwise[timm]'") from error
    return timm.list_models(), lambda model, arguments: timm.create_model(model, pretrained=False, **arguments)
