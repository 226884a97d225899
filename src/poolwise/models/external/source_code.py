"""Python source code that builds the same network as ``networks.build``, for exports."""

from __future__ import annotations

from keyword import iskeyword

from torch import nn

from poolwise.models.external.networks import EXTRA_ARGUMENTS, LIBRARIES, arguments, build, in_file, maker_of, runs
from poolwise.spaces import Pooling

_TRIED = (64, 224)  # image sizes in pixels that ``apply`` tries without an example
Lines = tuple[list[str], list[str]]  # imports, other lines


def written(name: str, classes: int, pooling: Pooling | str) -> Lines:
    """Return source lines that build the network as ``model`` and move its downsamplings.

    For a network registered with ``poolwise.backbone`` the lines use ``build``, which the user must define.
    """
    library, _, model = name.partition(":")
    imports, lines = _by_library(library, model, classes) if library in LIBRARIES else _by_owner(name, classes)
    shape = runs(build(name, classes))[0].shape
    example = "" if shape[-1] in _TRIED else f", torch.zeros({', '.join(map(str, shape))})"
    lines = [*lines, f"poolwise.apply(model, {str(pooling)!r}{example})"]
    torch = ["import torch"] if any("torch." in line for line in lines) else []
    return [*imports, *torch, "import poolwise"], lines


def _by_library(library: str, model: str, classes: int) -> Lines:
    if library == "timm":
        return ["import timm"], [f"model = timm.create_model({model!r}, num_classes={classes})"]
    more = "".join(f", {key}={value}" for key, value in EXTRA_ARGUMENTS.get(model, {}).items())
    return ["from torchvision import models"], [f"model = models.get_model({model!r}, num_classes={classes}{more})"]


def _by_owner(name: str, classes: int) -> Lines:
    maker, file = maker_of(name), in_file(name)
    called = file[1] if file else "build"
    model, call = maker, called
    if not isinstance(model, nn.Module):
        keywords = arguments(model, classes)
        model, call = model(**keywords), f"{called}({', '.join(f'{key}={value}' for key, value in keywords.items())})"
    imports, lines = [], [f"# build: the argument of poolwise.backbone({name.partition(':')[2]!r}, build)"]
    if file:
        stem, place = file[0].stem, f"sys.path.insert(0, {str(file[0].parent)!r})"
        imports, lines = ["import sys"], [place, f"from {stem} import {called}"]
        if not stem.isidentifier() or iskeyword(stem):
            imports = ["import importlib", *imports]
            lines = [place, f"{called} = importlib.import_module({stem!r}).{called}"]
    return imports, [*lines, f"model = {call}", *_other_head(model, build(name, classes))]


def _other_head(plain: nn.Module, made: nn.Module) -> list[str]:
    """Return the line that replaces the head of ``plain`` by that of ``made``, if their numbers of classes differ."""
    for name, module in plain.named_modules():
        other = made.get_submodule(name)
        if isinstance(module, nn.Linear) and isinstance(other, nn.Linear) and module.out_features != other.out_features:
            parent, _, last = name.rpartition(".")
            head = f"torch.nn.Linear({other.in_features}, {other.out_features}, bias={other.bias is not None})"
            return (
                [f"setattr(model.get_submodule({parent!r}), {last!r}, {head})"]
                if parent
                else [f"model.{last} = {head}"]
            )
    return []
