"""What a ranking is worth: agreement with the truth, what its top holds, how sure that is, and smoothing. No torch."""

from poolwise.metrics.agreement import kendall_tau_a, kendall_tau_b, sparse_tau, spearman
from poolwise.metrics.fusion import Fused, fuse
from poolwise.metrics.picks import beats_random, best_rank, regret, three_picks
from poolwise.metrics.signal import Signal, signal
from poolwise.metrics.smoothing import Smoothed, fill, smooth
from poolwise.metrics.together import Together, fuse_parts, together
from poolwise.metrics.uncertainty import Paired, bootstrap_interval, mean_interval, paired_test
from poolwise.metrics.verdict import Comparison, compare_paired, cost_words, sentence

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
