"""The run folder: request, progress and results of a run. Every write is atomic; nothing is ever unpickled.

``run.json`` request and environment · ``manifest.json`` SHA-256 of every file · ``events.jsonl`` progress · ``checkpoints/``
safetensors · ``short.sqlite`` · ``ranking.json`` · ``trials.sqlite`` · ``retrain.json`` · ``figures/`` · ``report.html`` ·
``spare/`` a copy of every JSON file, and the search's previous checkpoint.
"""

from poolwise.storage.environment import cache_folder, changes, command_line, environment
from poolwise.storage.files import FORMAT, exclusive, read_checked, read_json, write_atomically, writing
from poolwise.storage.run_folder import RunFolder, checkpoint_name
from poolwise.storage.trials import Trials

__all__ = [
    "FORMAT",
    "RunFolder",
    "Trials",
    "cache_folder",
    "changes",
    "checkpoint_name",
    "command_line",
    "environment",
    "exclusive",
    "read_checked",
    "read_json",
    "write_atomically",
    "writing",
]
