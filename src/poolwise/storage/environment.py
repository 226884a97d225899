"""The hardware, versions and command that produced a result."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs


def cache_folder() -> Path:
    """Return the folder that caches data and calibrations: ``POOLWISE_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("POOLWISE_CACHE") or platformdirs.user_cache_dir("poolwise"))


def environment() -> dict[str, Any]:
    """Return the versions and hardware that a result depends on."""
    import torch

    versions = {name: metadata.version(name) for name in ("poolwise", "torch", "torchvision", "numpy")}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "numpy_random": np.random.PCG64.__name__,
    }


def changes(request: dict[str, Any]) -> list[str]:
    """Return one line per version or hardware property that differs from those recorded in a request.

    Only properties that can change the exact bits of a result are compared.
    """
    now, differences = environment(), []
    for group in ("hardware", "versions"):
        before = request.get(group, {})
        differences += [
            f"{name} {before[name]}, now {value}"
            for name, value in now[group].items()
            if name in before and before[name] != value
        ]
    return differences


def _processor() -> str:
    """Return CPU model, CPU count and, where the system lists them, vector instruction sets, to tell machines apart."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        flags = set(fields.get("flags", "").split())
        units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
        return f"{fields.get('model name', platform.processor())} ({os.cpu_count()} CPUs, {', '.join(units)})"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} CPUs)"


def command_line() -> str:
    """Return the command line of this process, shell-quoted."""
    return shlex.join(["poolwise", *sys.argv[1:]])
