"""External networks by name: torchvision's, timm's and the user's.

Names are ``torchvision:resnet18``, ``timm:resnet26d``, ``nets.py:Net`` (a class or function in a Python file) and
``own:Net`` (registered with ``backbone``).
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
from poolwise.models.external.chain_adapter import ExternalChain, chained, check_same
from poolwise.models.external.slots import Slots, slots
from poolwise.models.families.registry import Family
from poolwise.process import generators_kept, seed_global

LIBRARIES = ("torchvision", "timm")
PREFIX = "own:"
_LISTS = {
    "torchvision": "from torchvision.models import list_models; list_models()",
    "timm": "import timm; timm.list_models()",
}  # Python that lists the models of a library
_ONE_OUTPUT = {"aux_logits": False, "init_weights": True}
EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": _ONE_OUTPUT,
    "inception_v3": _ONE_OUTPUT,
}  # extra arguments for torchvision models
Build = Callable[..., nn.Module]
_CLASSES = 10  # default where a network requires a number of classes and none is known
SIZES = (64, 224, 32, 28, 96)  # image sizes in pixels, tried in order, to find layers with

_registered: dict[str, nn.Module | Build] = {}  # networks registered with ``backbone`` in this process


def is_other(name: str) -> bool:
    """Return whether ``name`` is the name of an external network, not of a family of this library."""
    library, colon, _ = name.partition(":")
    return bool(colon) and (library in LIBRARIES or library.endswith(".py") or f"{library}:" == PREFIX)


def backbone(name: str, build: nn.Module | Build) -> str:
    """Register a network in this process.

    A run folder stores only the name. Call this again before you resume a run in another process.

    Args:
        name: Any name. Reusing a name replaces the previous network.
        build: A function or class that creates the network, called with ``classes`` or ``num_classes`` if it has such
            an argument. Or a network, which is copied and whose weights every training starts from. If its number of
            classes differs from the data's, the last linear layer is replaced by a new one.

    Returns:
        The name of the model for the config, ``own:NAME``.

    Raises:
        RequestError: ``build`` is not callable.
    """
    if not callable(build):
        raise RequestError(
            f"backbone {name!r} is a {type(build).__name__}: pass a network, or a function or class that creates one"
        )
    _registered[f"{PREFIX}{name}"] = build
    return f"{PREFIX}{name}"


def registered(model: str) -> nn.Module | Build | None:
    """Return what was registered as ``model`` with ``backbone``, to pass to another process. None for other models."""
    return _registered.get(model)


def build(name: str, classes: int | None = None) -> nn.Module:
    """Build the network with its library's initial weights. Nothing is downloaded.

    Initial weights are drawn from the global generators, whose states are restored afterwards.

    Args:
        name: The name of an external network (see the module docstring).
        classes: Number of classes of the head. None means the library's default.

    Raises:
        RequestError: The model is unknown, or timm is needed and not installed.
    """
    library, _, model = name.partition(":")
    with generators_kept():
        if library not in LIBRARIES:
            return _made(maker_of(name), name, classes)
        known, create = _torchvision() if library == "torchvision" else _timm()
        if model not in known:
            raise RequestError(
                f"{library} has no model {model[:60]!r}{did_you_mean(model, known, '.')}"
                f" To list its {len(known)} models: {_LISTS[library]}"
            )
        return create(model, {} if classes is None else {"num_classes": classes})


def maker_of(name: str) -> nn.Module | Build:
    """Return the network, or the function that builds it, for ``FILE.py:NAME`` or ``own:NAME``.

    Raises:
        RequestError: There is none with this name.
    """
    file = in_file(name)
    maker = _from_file(*file) if file else _registered.get(name)
    if maker is None:
        model = name.removeprefix(PREFIX)
        raise RequestError(f"no network is registered as {name}: register it with poolwise.backbone({model!r}, build)")
    return maker


def _made(maker: nn.Module | Build, name: str, classes: int | None) -> nn.Module:
    """Copy or build the network. Replace its last layer if its number of classes differs from ``classes``."""
    model = copy.deepcopy(maker) if isinstance(maker, nn.Module) else maker(**arguments(maker, classes))
    if not isinstance(model, nn.Module):
        raise RequestError(f"{name} returns a {type(model).__name__}: it must return a torch.nn.Module")
    return model if classes is None else _with_classes(model, classes)


def arguments(maker: Build, classes: int | None) -> dict[str, int]:
    """Return the keyword arguments for a function or class that builds a network."""
    parameters = inspect.signature(maker).parameters
    known = [parameters[one] for one in ("classes", "num_classes") if one in parameters]
    wanted = [one.name for one in known if classes is not None or one.default is inspect.Parameter.empty]
    return dict.fromkeys(wanted[:1], classes or _CLASSES)


def in_file(name: str) -> tuple[Path, str] | None:
    """Split ``FILE.py:NAME`` into the absolute path and the class or function name. Return None for other models."""
    if not name.partition(":")[0].endswith(".py"):
        return None
    file, _, model = name.rpartition(":")
    return Path(os.path.abspath(os.path.expanduser(file))), model


def with_absolute_path(name: str) -> str:
    """Return the model's name with an absolute file path, so that it works from any working directory."""
    location = in_file(name)
    return name if location is None else f"{location[0]}:{location[1]}"


def _from_file(path: Path, model: str) -> Build:
    """Return a class or function of a Python file, imported as a module so that other processes can unpickle it."""
    if not path.is_file():
        raise RequestError(f"{path}: file not found. A network of your own is named FILE.py:NAME")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    origin = Path(getattr(module, "__file__", None) or "").absolute()
    if origin != path:
        raise RequestError(f"{path.name} has the name of another module ({origin}): rename the file")
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    if model not in names:
        raise RequestError(f"{path} has no class or function {model[:60]!r}{did_you_mean(model, names)}")
    return getattr(module, model)


def _torchvision() -> tuple[list[str], Callable[[str, dict[str, Any]], nn.Module]]:
    from torchvision import models

    def create(model: str, arguments: dict[str, Any]) -> nn.Module:
        return models.get_model(model, weights=None, **EXTRA_ARGUMENTS.get(model, {}), **arguments)

    return models.list_models(module=models), create


def _timm() -> tuple[list[str], Callable[[str, dict[str, Any]], nn.Module]]:
    try:
        import timm
    except ImportError as error:
        raise RequestError("models from timm need the package timm: run pip install 'poolwise[timm]'") from error
    return timm.list_models(), lambda model, arguments: timm.create_model(model, pretrained=False, **arguments)


def _with_classes(model: nn.Module, classes: int) -> nn.Module:
    """Return the network, with its last linear layer replaced if it does not have ``classes`` outputs."""
    linears_run: list[nn.Linear] = []
    linear = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    handles = [
        one.register_forward_hook(lambda module, _registered, _out: linears_run.append(module)) for one in linear
    ]
    try:
        outputs = runs(model)[1]
    finally:
        for handle in handles:
            handle.remove()
    last = linears_run[-1] if linears_run else None
    if last is not None and last.out_features == classes:
        return model
    if last is None or last.out_features != outputs:
        raise RequestError(
            f"{type(model).__name__} has {outputs} outputs instead of {classes} and its last layer is not linear: use a function"
            " with an argument classes or num_classes"
        )
    parent, _, name = linear[last].rpartition(".")
    fresh = nn.Linear(last.in_features, classes, last.bias is not None)
    setattr(model.get_submodule(parent), name, fresh.to(last.weight.device, last.weight.dtype))
    return model


@torch.no_grad()
def runs(model: nn.Module) -> tuple[Tensor, int]:
    """Return two black images of the first size in SIZES that the network accepts, and its number of outputs.

    Raises:
        RequestError: The network accepts no size, or it does not return logits of two dimensions.
    """
    output, error = None, None
    modes = {module: module.training for module in model.modules()}
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    try:
        model.eval()
        for size in SIZES:
            example = torch.zeros(2, first.in_channels if first else 3, size, size)
            try:
                output = model(example)
                break
            except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as failure:
                error = error or failure
    finally:
        for module, training in modes.items():
            module.training = training
    if output is None:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(
            f"{type(model).__name__} does not run on images of {', '.join(map(str, SIZES))} pixels ({reason})"
        )
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = "x".join(map(str, output.shape)) if isinstance(output, Tensor) else type(output).__name__
        raise RequestError(
            f"{type(model).__name__} returns {shape} for two images: it must return logits of two dimensions (images, classes)"
        )
    return example, output.shape[1]


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators with ``generator``'s seed inside this context, and restore them afterwards."""
    with generators_kept():
        seed_global(generator.initial_seed())
        yield


@dataclass(frozen=True)
class ExternalBuilder:
    """Builds chains of one external network. ``create`` seeds the initial weights, as ``models.chain.create`` does."""

    name: str

    def __call__(self, classes: int = 10, width: int | None = None, norm: Norm = running_norm) -> ExternalChain:
        with torch.device("cpu"):
            model = build(self.name, classes)
            chain = chained(model, runs(model)[0])
        if norm is not running_norm:
            chain.use_batch_statistics()
        learning(chain)
        return chain

    def create(self, generator: torch.Generator, **arguments: Any) -> ExternalChain:
        with _seeded(generator):
            return self(**arguments)


def family_of(name: str) -> Family:
    """Return the network as a family whose default is the current configuration.

    Raises:
        RequestError: The network cannot be searched.
    """
    return _checked(name, registered(name))


@functools.lru_cache(maxsize=16)
def _checked(name: str, _maker: object) -> Family:
    with _seeded(torch.Generator()):
        chain, (example, model_slots) = _chain_of(name)
    default = model_slots.pooling
    if not default.poolings:
        raise RequestError(
            f"{name} has no downsampling that can be moved (fixed: {'; '.join(model_slots.fixed.values()) or 'none'})"
        )
    check_same(chain, default, example)
    summary = f"{len(model_slots.layers)} layers of {type(chain.model).__name__}"
    return Family(name, default, None, ExternalBuilder(name), summary, "stride", model_slots.reduction, external=True)


def _chain_of(name: str) -> tuple[ExternalChain, tuple[Tensor, Slots]]:
    model = build(name)
    example, _ = runs(model)
    model_slots = slots(model, example)
    return ExternalChain(model, model_slots), (
        torch.randn(example.shape, generator=torch.Generator().manual_seed(0)),
        model_slots,
    )
