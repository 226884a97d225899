"""Networks that are not of this library: torchvision's and timm's by name, and the user's own.

``torchvision:resnet18``, ``timm:resnet26d``, ``nets.py:Net`` (a class or function in a Python file), and ``own:Net``,
which ``backbone`` gives a name to.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError, did_you_mean
from poolwise.models.chain import Norm, learning, running_norm
from poolwise.models.external.chain_adapter import WholeChain, chained, check_same
from poolwise.models.external.slots import Slots, slots
from poolwise.models.families.registry import Family
from poolwise.process import generators_kept, seed_global

LIBRARIES = ("torchvision", "timm")
OWN = "own:"
_ONE_OUTPUT = {"aux_logits": False, "init_weights": True}
ALONE: dict[str, dict[str, Any]] = {
    "googlenet": _ONE_OUTPUT,
    "inception_v3": _ONE_OUTPUT,
}  # more arguments of torchvision's
Build = Callable[..., nn.Module]
_CLASSES = 10  # of a network that must be told how many, where nothing says it yet
SIZES = (64, 224, 32, 28, 96)  # pixels of the images that layers are found with: the first that the network takes

_given: dict[str, nn.Module | Build] = {}  # what ``backbone`` gave names to, in this process


def is_other(name: str) -> bool:
    """Whether a model's name says that it is not a family of this library."""
    library, colon, _ = name.partition(":")
    return bool(colon) and (library in LIBRARIES or library.endswith(".py") or f"{library}:" == OWN)


def backbone(name: str, build: nn.Module | Build) -> str:
    """Make a network of your own known in this process; returns what ``Config.model`` takes, ``own:NAME``.

    Args:
        name: any name; the same name again takes the place of what it was given to before.
        build: a function or class that makes the network. It is called with ``classes`` or ``num_classes`` where it has such
            an argument. Or a network, which is copied and whose weights every training begins with. Where the number of
            classes differs from the data's, the last linear layer is made anew.

    A run folder keeps the name: call this again before a run is gone on with in another process.
    """
    if not callable(build):
        raise RequestError(
            f"backbone {name!r} is given a {type(build).__name__}: a network, or what makes one, is allowed"
        )
    _given[f"{OWN}{name}"] = build
    return f"{OWN}{name}"


def given(model: str) -> nn.Module | Build | None:
    """What ``backbone`` was given under this name, for another process; None for any other model."""
    return _given.get(model)


def build(name: str, classes: int | None = None) -> nn.Module:
    """The network with its library's own initial weights; nothing is downloaded.

    What it draws comes from the global generators as they stand, which are put back.

    Args:
        name: see the top of this file.
        classes: of the head; the library's default where it is None.

    Raises RequestError for an unknown model and where timm is not installed.
    """
    library, _, model = name.partition(":")
    with generators_kept():
        if library not in LIBRARIES:
            return _made(own(name), name, classes)
        known, create = _torchvision() if library == "torchvision" else _timm()
        if model not in known:
            raise RequestError(
                f"{library} has no model {model[:60]!r}{did_you_mean(model, known)}. It has {len(known)} models"
            )
        return create(model, {} if classes is None else {"num_classes": classes})


def own(name: str) -> nn.Module | Build:
    """What makes the network of ``FILE.py:NAME`` or ``own:NAME``, or the network itself. RequestError where it is not there."""
    file = in_file(name)
    found = _from_file(*file) if file else _given.get(name)
    if found is None:
        model = name.removeprefix(OWN)
        raise RequestError(
            f"nothing is called {name} here: poolwise.backbone({model!r}, build) gives a network this name"
        )
    return found


def _made(maker: nn.Module | Build, name: str, classes: int | None) -> nn.Module:
    """From a network or what makes one; with another head where its number of classes differs."""
    model = copy.deepcopy(maker) if isinstance(maker, nn.Module) else maker(**arguments(maker, classes))
    if not isinstance(model, nn.Module):
        raise RequestError(f"{name} makes a {type(model).__name__}: a torch.nn.Module is needed")
    return model if classes is None else _with_classes(model, classes)


def arguments(own: Build, classes: int | None) -> dict[str, int]:
    """What a function or class that makes a network is called with."""
    parameters = inspect.signature(own).parameters
    known = [parameters[one] for one in ("classes", "num_classes") if one in parameters]
    wanted = [one.name for one in known if classes is not None or one.default is inspect.Parameter.empty]
    return dict.fromkeys(wanted[:1], classes or _CLASSES)


def in_file(name: str) -> tuple[Path, str] | None:
    """The Python file, absolute, and the class or function of ``FILE.py:NAME``; None for any other model."""
    if not name.partition(":")[0].endswith(".py"):
        return None
    file, _, model = name.rpartition(":")
    return Path(os.path.abspath(os.path.expanduser(file))), model


def rooted(name: str) -> str:
    """The name of a model with the path of its file absolute, so that it is found from anywhere."""
    found = in_file(name)
    return name if found is None else f"{found[0]}:{found[1]}"


def _from_file(path: Path, model: str) -> Build:
    """A class or function of a Python file, imported as Python does it, so that other processes find it as well."""
    if not path.is_file():
        raise RequestError(f"{path} does not exist: write a network of your own as FILE.py:NAME")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    found = Path(getattr(module, "__file__", None) or "").absolute()
    if found != path:
        raise RequestError(f"{path.name} has the name of another module ({found}): give the file another name")
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    if model not in names:
        raise RequestError(f"{path} has no class or function {model[:60]!r}{did_you_mean(model, names)}")
    return getattr(module, model)


def _torchvision() -> tuple[list[str], Callable[[str, dict[str, Any]], nn.Module]]:
    from torchvision import models

    def create(model: str, arguments: dict[str, Any]) -> nn.Module:
        return models.get_model(model, weights=None, **ALONE.get(model, {}), **arguments)

    return models.list_models(module=models), create


def _timm() -> tuple[list[str], Callable[[str, dict[str, Any]], nn.Module]]:
    try:
        import timm
    except ImportError as error:
        raise RequestError("models of timm need the package timm: pip install 'poolwise[timm]'") from error
    return timm.list_models(), lambda model, arguments: timm.create_model(model, pretrained=False, **arguments)


def _with_classes(model: nn.Module, classes: int) -> nn.Module:
    """The network with a last linear layer of so many outputs; what it has already stays as it is."""
    called: list[nn.Linear] = []
    linear = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    handles = [one.register_forward_hook(lambda module, _given, _out: called.append(module)) for one in linear]
    try:
        found = runs(model)[1]
    finally:
        for handle in handles:
            handle.remove()
    last = called[-1] if called else None
    if last is not None and last.out_features == classes:
        return model
    if last is None or last.out_features != found:
        raise RequestError(
            f"{type(model).__name__} has {found} outputs for {classes} classes and its last layer is not linear: give a function"
            " that takes the number of classes (classes or num_classes)"
        )
    parent, _, name = linear[last].rpartition(".")
    fresh = nn.Linear(last.in_features, classes, last.bias is not None)
    setattr(model.get_submodule(parent), name, fresh.to(last.weight.device, last.weight.dtype))
    return model


@torch.no_grad()
def runs(model: nn.Module) -> tuple[Tensor, int]:
    """Black images that the network takes, the first of SIZES, and the number of its outputs. RequestError for none."""
    found, error = None, None
    modes = {module: module.training for module in model.modules()}
    model.eval()
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    for size in SIZES:
        example = torch.zeros(2, first.in_channels if first else 3, size, size)
        try:
            found = model(example)
            break
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as failure:
            error = error or failure
    for module, training in modes.items():
        module.training = training
    if found is None:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"{type(model).__name__} runs no images of {', '.join(map(str, SIZES))} pixels ({told})")
    if not isinstance(found, Tensor) or found.dim() != 2:
        shape = "x".join(map(str, found.shape)) if isinstance(found, Tensor) else type(found).__name__
        raise RequestError(
            f"{type(model).__name__} returns {shape} for two images: logits of two dimensions are needed"
        )
    return example, found.shape[1]


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """What libraries draw from the global generators comes from ``generator``'s seed inside; they are put back after."""
    with generators_kept():
        seed_global(generator.initial_seed())
        yield


@dataclass(frozen=True)
class Whole:
    """What builds chains of one network; ``create`` as ``chain.create`` does, from a generator's seed."""

    name: str

    def __call__(self, classes: int = 10, width: int | None = None, norm: Norm = running_norm) -> WholeChain:
        with torch.device("cpu"):
            model = build(self.name, classes)
            chain = chained(model, runs(model)[0])
        if norm is not running_norm:
            chain.use_batch_statistics()
        learning(chain)
        return chain

    def create(self, generator: torch.Generator, **arguments: Any) -> WholeChain:
        with _seeded(generator):
            return self(**arguments)


def family_of(name: str) -> Family:
    """The network as a family, its own placement the default. RequestError where it cannot be searched."""
    return _checked(name, given(name))


@functools.lru_cache(maxsize=16)
def _checked(name: str, _own: object) -> Family:
    with _seeded(torch.Generator()):
        chain, (example, found) = _chain_of(name)
    default = found.pooling
    if not default.poolings:
        raise RequestError(f"{name} has no downsampling that can be moved: {'; '.join(found.fixed.values()) or 'none'}")
    check_same(chain, default, example)
    summary = f"{len(found.layers)} layers of {type(chain.model).__name__}"
    return Family(name, default, None, Whole(name), summary, "stride", found.reduction, whole=True)


def _chain_of(name: str) -> tuple[WholeChain, tuple[Tensor, Slots]]:
    model = build(name)
    example, _ = runs(model)
    found = slots(model, example)
    return WholeChain(model, found), (torch.randn(example.shape, generator=torch.Generator().manual_seed(0)), found)
