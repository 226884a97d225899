"""Predict the accuracy of all configurations from a few stand-alone trainings: a fully Bayesian Gaussian process.

Accuracy of a configuration x, in points:  f(x) = m + t (sum_j b_j h_j(x) + r g(x)),  y = f(x) + noise.

- h_j are standardized hints: scores of a search, productive convolutions, log MACs, or anything else known before
  training. b_j >= 0 is the trust in hint j; the prior gives positive probability to exactly 0.
- g is a Gaussian process over pooling positions with kernel exp(-|dx|^2 / 2 l^2), plus an independent part for each
  configuration (the independent share).
- A shorter training measures  m' + rho (f(x) - m) + an independent part.  rho in [0, 1] is its correlation with full
  trainings; the prior favors large values.
- m has a flat prior. t, r, l, rho, the independent share, the noise and all b_j are unknown: DRAWS points of a Sobol sequence
  over their prior are weighted by marginal likelihood. A hint that the trainings contradict thus loses its weight.

For given constants this is standard Gaussian conditioning (Rasmussen and Williams, 2006, algorithm 2.1); the tests
compare it with scikit-learn. A library would fit one set of constants by maximum likelihood, which is unreliable for
five trainings. Averaging thousands of sets is one batched solve, so a thousand simulated studies take seconds.

Legend: H draws of the constants (DRAWS, or a subset), P configurations, N trainings, J hints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

DRAWS = 2048
KEPT = 128  # draws resampled by weight, used to predict every configuration
_FLAT = 400.0  # variance of m in points squared: nearly flat
_SPREAD, _NOISE, _LENGTH = (0.15, 6.0), (0.05, 1.5), (1.5, 8.0)  # t and noise in points, l in layers; log-uniform
_INDEPENDENT = 0.5  # maximum of the independent share: variance of g that is independent for each configuration
_LEAST = 0.15  # minimum of r
_DISTRUST = 0.4  # prior probability that a hint is useless (b_j = 0)
_JOINT = 600  # maximum number of configurations sampled jointly
_SAMPLED, _EACH = 48, 8  # samples of the constants, and samples of the true accuracies for each


@dataclass(frozen=True)
class Hint:
    """Posterior of one hint: probability that it is useless, and its share of the explained variance."""

    ignored: float
    weight: float


class Surrogate:
    """Posterior of the accuracies of P configurations, given hints and the trainings added by ``tell``.

    The result depends only on the ``tell`` calls, in order. Accuracies are in percent.

    Args:
        positions_PS: Pooling positions, in layers.
        hints_JP: One row per hint; a constant row has no effect.
        reliability_J: Share of each hint's variance that is not noise (None: all of it). Its square root bounds the
            correlation with the true accuracies, and so scales the hint.
        seed: Seed of the Sobol sequence.
    """

    def __init__(
        self,
        positions_PS: np.ndarray,
        hints_JP: np.ndarray,
        reliability_J: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.positions_PS = np.asarray(positions_PS, float)
        hints_JP = np.asarray(hints_JP, float).reshape(-1, len(self.positions_PS))
        spread_J = hints_JP.std(1, keepdims=True)
        self.hints_JP = (hints_JP - hints_JP.mean(1, keepdims=True)) / np.where(spread_J > 0, spread_J, 1)
        if reliability_J is not None:
            self.hints_JP *= np.sqrt(np.asarray(reliability_J, float))[:, None]
        u_H = qmc.Sobol(6 + len(hints_JP), scramble=True, seed=seed).random(DRAWS).T
        self.spread_H, self.noise_H, self.length_H = map(_log_uniform, u_H, (_SPREAD, _NOISE, _LENGTH))
        self.rest_H, self.independent_H, self.agreement_H = (
            _LEAST + (1 - _LEAST) * u_H[3],
            _INDEPENDENT * u_H[4] ** 2,
            np.sqrt(u_H[5]),
        )
        self.trust_HJ = np.clip((u_H[6:] - _DISTRUST) / (1 - _DISTRUST), 0, None).T
        self._prior_HP = self.spread_H[:, None] * (self.trust_HJ @ self.hints_JP)
        self._scale_H = (self.spread_H * self.rest_H) ** 2
        self.places: list[int] = []
        self.values: list[float] = []
        self.reduced: list[bool] = []

    def __len__(self) -> int:
        return len(self.values)

    def tell(self, place: int, value: float, reduced: bool = False) -> None:
        """Add the accuracy (percent) of one training of configuration ``place``; ``reduced`` marks a shorter training."""
        self.places.append(place)
        self.values.append(value)
        self.reduced.append(reduced)
        self._forget()

    def without_last(self) -> None:
        """Undo the last ``tell``."""
        for values in (self.places, self.values, self.reduced):
            values.pop()
        self._forget()

    def _forget(self) -> None:
        for name in ("weight_H", "_posterior", "mean_P", "deviation_P"):
            self.__dict__.pop(name, None)

    def _kernel(self, rows: np.ndarray, columns: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """Return the covariance of the true accuracies without m, [picked draws, rows, columns]."""
        squared = ((self.positions_PS[rows][:, None] - self.positions_PS[columns]) ** 2).sum(-1)
        independent_H, same = self.independent_H[picked, None, None], rows[:, None] == columns
        smooth = np.exp(-squared / (2 * self.length_H[picked, None, None] ** 2))
        return self._scale_H[picked, None, None] * ((1 - independent_H) * smooth + independent_H * same)

    def _whitened(self, picked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return, for each picked draw, Cholesky factor [H, N, N], whitened residuals [H, N] and log likelihood [H]."""
        places, values, reduced_N = np.array(self.places, int), np.array(self.values), np.array(self.reduced, bool)
        across = reduced_N[:, None] != reduced_N
        shared_HNN = np.where(across, self.agreement_H[picked, None, None], 1.0)
        covariance_HNN = self._kernel(places, places, picked) * shared_HNN + _FLAT * ~across
        covariance_HNN = covariance_HNN + self.noise_H[picked, None, None] ** 2 * np.eye(len(places))
        factor_HNN = np.linalg.cholesky(covariance_HNN)
        scaled_HN = np.where(reduced_N, self.agreement_H[picked, None], 1.0)
        rest_HN = values - self._centre - scaled_HN * self._prior_HP[picked][:, places]
        rest_HN = np.linalg.solve(factor_HNN, rest_HN[:, :, None])[:, :, 0]
        log_H = -0.5 * (rest_HN**2).sum(1) - np.log(np.diagonal(factor_HNN, axis1=1, axis2=2)).sum(1)
        return factor_HNN, rest_HN, log_H

    @property
    def _centre(self) -> float:
        return float(np.mean(self.values)) if self.values else 0.0

    @cached_property
    def weight_H(self) -> np.ndarray:
        """Posterior weights of all draws of the constants; they sum to 1."""
        log_H = self._whitened(np.arange(DRAWS))[2] if len(self) else np.zeros(DRAWS)
        weight_H = np.exp(log_H - log_H.max())
        return weight_H / weight_H.sum()

    def conditioned(self, picked: np.ndarray, weight_H: np.ndarray) -> _Posterior:
        """Return the posterior of every configuration under the picked draws, with weights ``weight_H``."""
        every, reduced_N = np.arange(len(self.positions_PS)), np.array(self.reduced, bool)
        factor_HNN, rest_HN, _ = self._whitened(picked)
        scaled_HN = np.where(reduced_N, self.agreement_H[picked, None], 1.0)
        cross_HNP = self._kernel(np.array(self.places, int), every, picked) * scaled_HN[:, :, None]
        cross_HNP = np.linalg.solve(factor_HNN, cross_HNP + _FLAT * ~reduced_N[:, None])
        mean_HP = self._centre + self._prior_HP[picked] + np.einsum("hn,hnp->hp", rest_HN, cross_HNP)
        variance_HP = self._scale_H[picked, None] + _FLAT - (cross_HNP**2).sum(1)
        return _Posterior(picked, weight_H, mean_HP, np.maximum(variance_HP, 1e-12), cross_HNP, factor_HNN, rest_HN)

    @cached_property
    def _posterior(self) -> _Posterior:
        """Posterior under KEPT draws, resampled systematically by weight."""
        cumulated = np.cumsum(self.weight_H)
        drawn = np.searchsorted(cumulated, (np.arange(KEPT) + 0.5) / KEPT * cumulated[-1])
        picked, count = np.unique(drawn, return_counts=True)
        return self.conditioned(picked, count / KEPT)

    @cached_property
    def mean_P(self) -> np.ndarray:
        """Expected accuracy in percent."""
        return self._posterior.weight_H @ self._posterior.mean_HP

    @cached_property
    def deviation_P(self) -> np.ndarray:
        """Posterior standard deviation of the true accuracy, in points."""
        posterior = self._posterior
        second_P = posterior.weight_H @ (posterior.variance_HP + (posterior.mean_HP - self.mean_P) ** 2)
        return np.sqrt(second_P)

    @property
    def noise(self) -> float:
        """Standard deviation between trainings of one configuration, in points."""
        return float(np.sqrt(self.weight_H @ self.noise_H**2))

    @property
    def agreement(self) -> float:
        """Expected correlation of shorter with full trainings."""
        return float(self.weight_H @ self.agreement_H)

    def hints(self) -> list[Hint]:
        """Return the posterior of each hint."""
        explained_H = (self.trust_HJ**2).sum(1) + self.rest_H**2
        ignored_J = self.weight_H @ (self.trust_HJ == 0)
        share_J = self.weight_H @ (self.trust_HJ**2 / explained_H[:, None])
        return [Hint(float(ignored), float(share)) for ignored, share in zip(ignored_J, share_J, strict=True)]

    def better(self, place: int) -> np.ndarray:
        """Return the probability [P] that each configuration is better than the one at ``place``; 0 for itself."""
        posterior = self._posterior
        here = self._kernel(np.array([place]), np.arange(len(self.positions_PS)), posterior.picked)[:, 0] + _FLAT
        joint_HP = here - np.einsum("hn,hnp->hp", posterior.cross_HNP[:, :, place], posterior.cross_HNP)
        variance_HP = posterior.variance_HP + posterior.variance_HP[:, place, None] - 2 * joint_HP
        gap_HP = posterior.mean_HP - posterior.mean_HP[:, place, None]
        chance_P = posterior.weight_H @ ndtr(gap_HP / np.sqrt(np.maximum(variance_HP, 1e-12)))
        chance_P[place] = 0.0
        return chance_P

    def draws(self, places: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sample true accuracies jointly, [n, places], each under constants sampled by weight."""
        posterior, samples = self._posterior, []
        picked = generator.choice(len(posterior.picked), _SAMPLED, p=posterior.weight_H)
        for h in picked:
            cross_NP = posterior.cross_HNP[h][:, places]
            covariance = self._kernel(places, places, posterior.picked[h : h + 1])[0] + _FLAT - cross_NP.T @ cross_NP
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0))
            samples.append(posterior.mean_HP[h, places] + generator.standard_normal((_EACH, len(places))) @ root.T)
        return np.concatenate(samples)

    def best(self, generator: np.random.Generator) -> np.ndarray:
        """Return the probability [P] of being the best, estimated by sampling the most promising configurations."""
        hits_P = np.zeros(len(self.positions_PS))
        places = np.sort(np.argsort(-(self.mean_P + 2 * self.deviation_P), kind="stable")[:_JOINT])
        drawn = self.draws(places, generator)
        np.add.at(hits_P, places[drawn.argmax(1)], 1)
        return hits_P / len(drawn)

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the leave-one-out prediction of each training: mean [N] and standard deviation [N]."""
        posterior = self._posterior
        inverse_HNN = np.linalg.inv(posterior.factor_HNN)
        precision_HNN = inverse_HNN.transpose(0, 2, 1) @ inverse_HNN
        whitened_HN = np.einsum("hnm,hn->hm", inverse_HNN, posterior.rest_HN)
        variance_HN = 1 / np.diagonal(precision_HNN, axis1=1, axis2=2)
        mean_HN = np.array(self.values) - whitened_HN * variance_HN
        mean_N = posterior.weight_H @ mean_HN
        return mean_N, np.sqrt(posterior.weight_H @ (variance_HN + (mean_HN - mean_N) ** 2))


@dataclass(frozen=True)
class _Posterior:
    picked: np.ndarray
    weight_H: np.ndarray
    mean_HP: np.ndarray
    variance_HP: np.ndarray
    cross_HNP: np.ndarray  # whitened covariance of trainings and true accuracies
    factor_HNN: np.ndarray
    rest_HN: np.ndarray  # whitened residuals


def _log_uniform(u: np.ndarray, between: tuple[float, float]) -> np.ndarray:
    low, high = np.log(between)
    return np.exp(low + u * (high - low))
