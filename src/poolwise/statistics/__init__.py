"""Quality of rankings: agreement, regret, uncertainty and verdicts. Does not import torch."""

from poolwise.statistics.agreement import kendall_tau_a, kendall_tau_b, sparse_tau, spearman
from poolwise.statistics.picks import beats_random, best_rank, regret, three_picks
from poolwise.statistics.uncertainty import Paired, bootstrap_interval, mean_interval, paired_test
from poolwise.statistics.verdict import Comparison, compare_paired, cost_words, sentence

__all__ = [
    "Comparison",
    "Paired",
    "beats_random",
    "best_rank",
    "bootstrap_interval",
    "compare_paired",
    "cost_words",
    "kendall_tau_a",
    "kendall_tau_b",
    "mean_interval",
    "paired_test",
    "regret",
    "sentence",
    "sparse_tau",
    "spearman",
    "three_picks",
]
