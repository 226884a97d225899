"""Tree search over a hierarchy of configurations that is learned by clustering the outputs of their networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster import hierarchy

from poolwise.supernets.samplers.iterative_mcts import SCORING_BATCHES, TreeOfConfigurations
from poolwise.supernets.samplers.registry import register
from poolwise.supernets.samplers.task import Survey, Surveys

MOST = 5000  # configurations, whose distances take P^2 / 2 float64: 100 MB


@register("learned-hierarchy", summary="tree search over configurations clustered by their outputs: one SuperNet")
class LearnedHierarchy(TreeOfConfigurations):
    """Cluster the class probabilities of all configurations on five scoring batches; the dendrogram is the search tree.

    Roshtkhari, Toews, Pedersoli, *Neural Architecture Search by Learning a Hierarchical Search Space* (arXiv 2503.21061). The
    paper builds the tree from pairwise distances between the outputs of a partially trained SuperNet. The search is that of
    ``iterative-mcts`` with one iteration: uniform draws, one tree, and draws from it by UCT and a softmax.

    Choices made here, which may differ from the published ones: an output is the vector of softmax probabilities of all
    scoring images, so a difference in confidence counts and a constant added to the logits does not. Distances are Euclidean
    and clusters merge by Ward's criterion (JASA 1963), because it gives balanced trees: with other linkages outliers are
    often leaves next to the root, which a tree search draws about half of the time. The batches, the warm-up, C and T are
    those of ``iterative-mcts``. The order of two children has no effect on the chances.
    """

    surveys = Surveys(1, SCORING_BATCHES, MOST, outputs=True)

    def _grow(self, survey: Survey) -> Sequence[tuple[int, int]]:
        assert survey.outputs_PV is not None
        if len(survey.outputs_PV) == 1:
            return []
        # the next training step reports a search that diverged
        finite_PV = np.nan_to_num(survey.outputs_PV.astype(np.float64))
        merges = hierarchy.linkage(finite_PV, method="ward")
        return [(int(left), int(right)) for left, right in merges[:, :2]]
