"""What a ranking is worth: agreement with the truth, what its top holds, how sure that is, and smoothing. No torch."""

from poolwise.statistics.agreement import kendall_tau_a, kendall_tau_b, sparse_tau, spearman
from poolwise.statistics.fusion import Fused, fuse
from poolwise.statistics.picks import beats_random, best_rank, regret, three_picks
from poolwise.statistics.signal import Signal, signal
from poolwise.statistics.smoothing import Smoothed, fill, smooth
from poolwise.statistics.together import Together, fuse_parts, together
from poolwise.statistics.uncertainty import Paired, bootstrap_interval, mean_interval, paired_test
from poolwise.statistics.verdict import Comparison, compare_paired, cost_words, sentence

__all__ = [
    "Comparison",
    "Fused",
    "Paired",
    "Signal",
    "Smoothed",
    "Together",
    "beats_random",
    "best_rank",
    "bootstrap_interval",
    "compare_paired",
    "cost_words",
    "fill",
    "fuse",
    "fuse_parts",
    "kendall_tau_a",
    "kendall_tau_b",
    "mean_interval",
    "paired_test",
    "regret",
    "sentence",
    "signal",
    "smooth",
    "sparse_tau",
    "spearman",
    "three_picks",
    "together",
]
