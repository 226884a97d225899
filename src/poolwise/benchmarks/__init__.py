"""Evaluation on tabular benchmarks: ``compare`` trains methods at equal compute, ``simulate`` replays strategies."""
