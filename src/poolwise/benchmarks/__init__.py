"""Methods judged against tabular benchmarks: compare trains them at equal compute, simulate replays strategies."""
