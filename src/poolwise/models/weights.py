"""Initial weights for training: a file, or pretrained weights of torchvision or timm.

Parameter names are those of the plain network. For a family of this library these are the names that
``poolwise.network`` and ``poolwise export`` write; for an external network, the names in its library. The last layer is
initialized from scratch if its number of classes differs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse
from safetensors.torch import save
from torch import Tensor, nn

from poolwise.datasets.official import ask
from poolwise.errors import RequestError, RunFailure, did_you_mean
from poolwise.models.chain import Chain
from poolwise.models.external.chain_adapter import ExternalChain
from poolwise.models.external.networks import LIBRARIES
from poolwise.process import generators_kept
from poolwise.sanitize import check_header, visible

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts save a state dict
_AVERAGES = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Weights:
    """Weights and where they come from.

    Attributes:
        source: The source as the user wrote it.
        sha256: SHA-256 of the file's bytes.
        tensors: Tensors by name.
    """

    source: str
    sha256: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    def packed(self) -> Tensor:
        """Return all tensors serialized into one uint8 tensor in shared memory, for another process."""
        return torch.frombuffer(bytearray(save(dict(self.tensors))), dtype=torch.uint8).share_memory_()

    def opened(self, packed: Tensor) -> Weights:
        """Return these weights with the tensors read from ``packed``."""
        return replace(self, tensors=parse(packed.numpy().tobytes()))


def is_named(source: str) -> bool:
    """Return whether ``source`` names weights of a library (``torchvision:resnet18``), not a file."""
    return source.partition(":")[0] in LIBRARIES and ":" in source


def check_source(source: str) -> None:
    """Raise RequestError unless ``source`` names a library's weights or is a file with a supported suffix. Opens no file."""
    if is_named(source):
        return
    if Path(source).suffix.lower() not in SUFFIXES:
        raise RequestError(
            f"unknown weights {source[:80]!r}: use torchvision:NAME, timm:NAME or a file that ends with {', '.join(SUFFIXES)}"
        )
    if not Path(source).expanduser().is_file():
        raise RequestError(f"weights {visible(str(Path(source).expanduser()))}: there is no such file")


def load(source: str) -> Weights:
    """Read weights from a file, or download them.

    Args:
        source: A file (``.safetensors``; ``.pth``, ``.pt`` and ``.bin`` are read without unpickling objects),
            ``torchvision:resnet18[.IMAGENET1K_V1]``, or ``timm:resnet26d``, optionally with a tag.

    Raises:
        RequestError: The name is unknown, or the file does not hold weights.
        RunFailure: The download failed, or a downloaded file is damaged.
    """
    check_source(source)
    if is_named(source):
        library, _, name = source.partition(":")
        return _of_torchvision(source, name) if library == "torchvision" else _of_timm(source, name)
    return _of_file(source, Path(source).expanduser())


def _of_file(source: str, path: Path) -> Weights:
    shown = visible(str(path))
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".safetensors":
            check_header(path)
            read: Any = parse(data)
        else:
            read = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except RequestError:
        raise
    except Exception as error:  # a damaged file may raise any exception
        raise RequestError(
            f"weights {shown} cannot be read as tensors ({_first_line(error)}): use a file that holds a state dict"
        ) from error
    return Weights(source, hashlib.sha256(data).hexdigest(), _state_dict(read, shown))


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return visible(lines[0])[:160] if lines else type(error).__name__


def _state_dict(read: Any, shown: str) -> dict[str, Tensor]:
    """Extract tensors by name from the object that a training script saved."""
    for key in _WRAPPERS:
        if isinstance(read, dict) and isinstance(read.get(key), dict):
            read = read[key]
            break
    named = isinstance(read, dict) and all(isinstance(key, str) for key in read)
    tensors = {key: value for key, value in read.items() if isinstance(value, Tensor)} if named else {}
    if not tensors:
        raise RequestError(f"weights {shown} hold no named tensors: use a file that holds a state dict")
    if all(key.startswith("module.") for key in tensors):  # saved from nn.DataParallel or DistributedDataParallel
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _of_torchvision(source: str, name: str) -> Weights:
    from torchvision import models

    model, _, version = name.partition(".")
    known = models.list_models(module=models)
    if model not in known:
        raise RequestError(
            f"weights {source[:80]!r}: torchvision has no model {model[:60]!r}{did_you_mean(model, known)}"
        )
    kinds = models.get_model_weights(model)
    listed = [kind.name for kind in kinds]
    version = version or (kinds.DEFAULT.name if listed else "")
    if version not in listed:
        raise RequestError(
            f"weights {source[:80]!r}: torchvision has the weights {', '.join(listed) or 'none'} for {model}"
            f"{did_you_mean(version, listed)}"
        )
    url = kinds[version].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        _download(url, path)
    weights = _of_file(source, path)
    expected = path.stem.rpartition("-")[2]  # torchvision puts the first digits of the SHA-256 in the file name
    if not weights.sha256.startswith(expected):
        raise RunFailure(
            f"weights {path} are damaged: their SHA-256 does not start with {expected}; remove the file and try again"
        )
    return weights


def _download(url: str, path: Path) -> None:
    try:
        ask(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise RunFailure(
            f"weights {path.name} are not in {path.parent} and cannot be downloaded ({reason}): put the file there, or"
            " pass another file with --weights FILE"
        ) from error


def _of_timm(source: str, name: str) -> Weights:
    try:
        import timm
    except ImportError as error:
        raise RequestError("weights from timm need the package timm: run pip install 'poolwise[timm]'") from error
    model, known = name.partition(".")[0], timm.list_models()
    if model not in known:
        raise RequestError(f"weights {source[:80]!r}: timm has no model {model[:60]!r}{did_you_mean(model, known)}")
    tags = timm.list_pretrained(f"{model}.*") if not timm.is_model_pretrained(name) else [name]
    if not tags or ("." in name and name not in tags):
        raise RequestError(f"weights {source[:80]!r}: timm has the weights {', '.join(tags) or 'none'} for {model}")
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.hf_hub_id:
        raise RequestError(f"weights {source[:80]!r} are not on the Hugging Face hub: pass a file with --weights FILE")
    path = _from_hub(source, about.hf_hub_id, about.hf_hub_filename or "model.safetensors")
    weights = _of_file(source, path)
    # load through timm, which renames the parameters of older files
    with generators_kept():  # creating the network draws initial weights
        network: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    return replace(weights, tensors=network.state_dict())


def _from_hub(source: str, repository: str, name: str) -> Path:
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(repository, name)
    if isinstance(path, str):
        return Path(path)
    try:
        with contextlib.suppress(urllib.error.HTTPError):  # an HTTP error still shows that the host is reachable
            ask(huggingface_hub.constants.ENDPOINT)
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except Exception as error:  # huggingface_hub raises its own exception types
        raise RunFailure(
            f"weights {source} are not in {huggingface_hub.constants.HF_HUB_CACHE} and cannot be downloaded"
            f" ({_first_line(error)}): pass a file with --weights FILE"
        ) from error


def plain_tensors(chain: Chain) -> tuple[dict[str, Tensor], set[str]]:
    """Return parameters and buffers by their names in the plain network, and the names that belong to the head."""
    if isinstance(chain, ExternalChain):
        held = {id(tensor) for tensor in chain.head.state_dict(keep_vars=True).values()}
        state = dict(chain.model.state_dict(keep_vars=True))
        return state, {key for key, tensor in state.items() if id(tensor) in held}
    parts = [*((name, chain.at(i)) for i, name in enumerate(chain.names)), ("head", chain.head)]
    state = {f"{name}.{key}": tensor for name, part in parts for key, tensor in part.state_dict(keep_vars=True).items()}
    return state, {key for key in state if key.startswith("head.")}


@torch.no_grad()
def load_into(chain: Chain, weights: Weights) -> list[str]:
    """Copy weights into an initialized chain.

    Running averages are ignored for norms that use batch statistics.

    Returns:
        The sorted names in the head that keep their initial values.

    Raises:
        RequestError: The weights do not fit the network or are not finite. The chain is unchanged.
    """
    state, head = plain_tensors(chain)
    tensors = weights.tensors
    new = _new_keys(state, head, tensors)
    missing = [
        key for key in state if key not in tensors and key not in new and not key.endswith(".num_batches_tracked")
    ]
    if missing:
        raise RequestError(
            f"weights {weights.source} do not fit the network: {missing[0]} is missing ({len(missing)} of its {len(state)} names"
            f" are missing; the weights hold {', '.join(list(tensors)[:3])}, ...)"
        )
    taken = {key: tensor for key, tensor in state.items() if key in tensors and key not in new}
    for key, tensor in taken.items():
        if tensor.shape != tensors[key].shape:
            raise RequestError(
                f"weights {weights.source} do not fit the network: {key} is {_shape(tensors[key])} in the weights and"
                f" {_shape(tensor)} in the network"
            )
        if not torch.isfinite(tensors[key]).all():
            raise RequestError(f"weights {weights.source}: {key} has values that are not finite")
    _check_extra(state, weights)
    for key, tensor in taken.items():
        tensor.copy_(tensors[key])
    return sorted(new)


def _new_keys(state: Mapping[str, Tensor], head: set[str], tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names in the head to initialize from scratch.

    These are linear layers with a different number of outputs, or the whole head if the weights have none of it.
    """
    if not any(key in tensors for key in head):
        return set(head)
    other = {
        key.rpartition(".")[0]
        for key in head
        if key in tensors and state[key].dim() == 2 and state[key].shape != tensors[key].shape
        and state[key].shape[1:] == tensors[key].shape[1:]
    }  # fmt: skip
    return {key for key in head if key.rpartition(".")[0] in other}


def _check_extra(state: Mapping[str, Tensor], weights: Weights) -> None:
    """Raise RequestError for tensors that the network does not have, except running averages."""
    for key in weights.tensors:
        module, _, last = key.rpartition(".")
        if key in state or last in _AVERAGES:
            continue
        if f"{module}.running_mean" in weights.tensors:
            raise RequestError(
                f"weights {weights.source} hold the scale and shift of norms ({key}), which norm batch does not have: use --norm"
                " affine or recalibrated, or use the weights only in the retraining (--weights-for retrain)"
            )
        raise RequestError(
            f"weights {weights.source} do not fit the network: it has no {key} ({len(state)} names, the first are"
            f" {', '.join(list(state)[:3])})"
        )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
