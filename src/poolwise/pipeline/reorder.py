"""Reorder a ranking, or pick from it within other limits. No configuration is scored again.

The request stays in ``run.json`` until it is done. If the process is killed at any moment, resuming the run gives the
same result.
"""

from __future__ import annotations

import json
from typing import Any

from poolwise.config import Config
from poolwise.pipeline import graph
from poolwise.rankings import ranking
from poolwise.storage import RunFolder
from poolwise.storage.schemas import RankingFile

PENDING = "order_anew"  # key of run.json; the name is part of format 1


def pending(request: dict[str, Any], config: Config, limits: dict[str, Any] | None) -> dict[str, Any]:
    """Return the request with a pending reorder.

    Args:
        request: Content of ``run.json``.
        config: Config of the run after the reorder.
        limits: New value of ``limits`` in ``run.json``; None if it does not change.
    """
    order = {**_waiting(request), "settings": config.to_flat(), **({"limits": limits} if limits else {})}
    return {**request, PENDING: order}


def requested_settings(request: dict[str, Any]) -> Config:
    """Return the config of a request, including a pending reorder."""
    return Config.from_flat({**request, **_waiting(request)}["settings"])


def finish(folder: RunFolder) -> bool:
    """Carry out a pending reorder. Return whether there was one.

    If the run is not ranked yet, the reorder stays pending.
    """
    request = folder.request()
    if not request.get(PENDING) or not folder.has(RankingFile.FILE):
        return False
    config, waiting = requested_settings(request), _waiting(request)
    request = {key: value for key, value in {**request, **waiting}.items() if key != PENDING}
    before = folder.read(RankingFile.FILE, "")
    changed = ranking.arrange({**before, "settings": config.to_flat()}, config.ranking.fusion, ranking.trained(folder))
    after = json.loads(json.dumps(changed))  # as read back from the file: lists, no tuples
    stale = graph.outdated(folder, {RankingFile.FILE: after}, config)
    # The order of these writes matters. The reorder stays pending until the last one. Stale results are removed before
    # the ranking changes, because afterwards they could not be recognized.
    folder.save_request({**request, PENDING: True}, drop=graph.existing(folder, stale))
    folder.write_json(RankingFile.FILE, after)
    folder.save_request(request)
    return True


def _waiting(request: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of ``run.json`` that a pending reorder changes; empty if they are already saved."""
    waiting = request.get(PENDING)
    return waiting if isinstance(waiting, dict) else {}
