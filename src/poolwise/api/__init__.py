"""Python API: each function is one command.

    import poolwise
    result = poolwise.run(poolwise.preset("demo"), "runs/demo")

``search``, ``rank``, ``retrain`` and ``report`` are the stages of ``run``. Each stage reads what earlier stages wrote
to the run folder. ``resume`` continues with the requested stages that are not done.
"""

from poolwise.api.before import costs, named_slots, placements
from poolwise.api.comparisons import compare, plan_comparison
from poolwise.api.evidence import exhaustive, simulate
from poolwise.api.exports import Exported, export, hand_over, model, network, python_code
from poolwise.api.images import dataset, source
from poolwise.api.results import Comparison, Exhaustive, Ranking, Refinement, Result, Retraining, Run, Simulation
from poolwise.api.running import (
    REFINE_SETTINGS,
    changed,
    fit,
    plan,
    plan_left,
    rank,
    refine,
    report,
    resume,
    retrain,
    run,
    search,
)
from poolwise.benchmarks.compare.config import CompareConfig, ComparisonPlan
from poolwise.pipeline.graph import RUN_STAGES
from poolwise.selection.suggest import SuggestConfig, suggest

__all__ = [
    "REFINE_SETTINGS",
    "RUN_STAGES",
    "CompareConfig",
    "Comparison",
    "ComparisonPlan",
    "Exhaustive",
    "Exported",
    "Ranking",
    "Refinement",
    "Result",
    "Retraining",
    "Run",
    "Simulation",
    "SuggestConfig",
    "changed",
    "compare",
    "costs",
    "dataset",
    "exhaustive",
    "export",
    "fit",
    "hand_over",
    "model",
    "named_slots",
    "network",
    "placements",
    "plan",
    "plan_comparison",
    "plan_left",
    "python_code",
    "rank",
    "refine",
    "report",
    "resume",
    "retrain",
    "run",
    "search",
    "simulate",
    "source",
    "suggest",
]
