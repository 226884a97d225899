"""Put a ranking into another order, or pick from it within other limits. No configuration is scored again.

The request is kept in ``run.json`` until it is carried out, so that a process that is killed at any moment leaves a run
that is resumed to the same end: either nothing was requested yet, or all of it is done.
"""

from __future__ import annotations

import json
from typing import Any

from poolwise.config import Config
from poolwise.pipeline import graph
from poolwise.rankings import ranking
from poolwise.storage import RunFolder

PENDING = "order_anew"  # key of run.json; the name is part of format 1


def pending(request: dict[str, Any], config: Config, limits: dict[str, Any] | None) -> dict[str, Any]:
    """Return the request with an order that is to be carried out.

    Args:
        request: content of ``run.json``.
        settings: of the run once the ranking is in their order.
        limits: what ``limits`` of ``run.json`` says from then on; None where they do not change.
    """
    order = {**_waiting(request), "settings": config.to_flat(), **({"limits": limits} if limits else {})}
    return {**request, PENDING: order}


def requested_settings(request: dict[str, Any]) -> Config:
    """Return the settings of a request, with an order that is still to be carried out."""
    return Config.from_flat({**request, **_waiting(request)}["settings"])


def finish(folder: RunFolder) -> bool:
    """Carry out the order that a run was requested to have; return whether there was one.

    Where nothing is ranked yet, the request waits for the ranking.
    """
    request = folder.request()
    if not request.get(PENDING) or not folder.has(ranking.OUTPUT):
        return False
    config, waiting = requested_settings(request), _waiting(request)
    request = {key: value for key, value in {**request, **waiting}.items() if key != PENDING}
    before = folder.read(ranking.OUTPUT, "")
    changed = ranking.arrange({**before, "settings": config.to_flat()}, config.ranking.fusion, ranking.trained(folder))
    after = json.loads(json.dumps(changed))  # as it is read back: lists, no tuples
    stale = graph.outdated(folder, {ranking.OUTPUT: after}, config)
    # The order of these writes matters. Until the last one, the request says that the order is still to be carried out,
    # and what does not follow from it is gone before the ranking changes: afterwards nobody could tell.
    folder.save_request({**request, PENDING: True}, drop=graph.existing(folder, stale))
    folder.write_json(ranking.OUTPUT, after)
    folder.save_request(request)
    return True


def _waiting(request: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of ``run.json`` that change with the order; none where they are in place already."""
    waiting = request.get(PENDING)
    return waiting if isinstance(waiting, dict) else {}
