"""What a few stand-alone trainings say about all configurations: a Gaussian process whose every constant is learned.

Accuracy of a configuration x, in points:  f(x) = m + t (sum_j b_j h_j(x) + r g(x)),  y = f(x) + noise.

- h_j are hints, standardised: scores of a search, productive convolutions, log MACs, whatever is known of every
  configuration before it is trained. b_j >= 0 is the trust in hint j, exactly 0 in part of the prior.
- g is a Gaussian process over pooling positions, exp(-|dx|^2 / 2 l^2) with a share of its own for each configuration.
- A training that is a part as long sees  m' + rho (f(x) - m) + what it has of its own:  rho, from 0 to 1 and rather large, says
  how far it agrees.
- m is flat; t, r, l, rho, the own share, the noise and every b_j are unknown: DRAWS points of a Sobol sequence over their
  prior, each weighted by its marginal likelihood. So a hint that the trainings contradict loses its weight by itself.

Given the constants this is the textbook conditioning of a normal distribution (Rasmussen and Williams, 2006, algorithm 2.1);
the tests hold it against scikit-learn. It stands here since a library fits one set of constants by maximum likelihood, which with
five trainings is none; averaging thousands of sets at once is one batched solve, and a thousand simulated studies take seconds.

Legend: H draws of the constants (DRAWS, or those picked of them), P configurations, N trainings, J hints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

DRAWS = 2048
KEPT = 128  # of them, drawn by their weight, what every configuration is judged by
_FLAT = 400.0  # variance of m, in points squared: any mean accuracy will do
_SPREAD, _NOISE, _LENGTH = (0.15, 6.0), (0.05, 1.5), (1.5, 8.0)  # t and noise in points, l in layers; log-uniform
_OWN = 0.5  # most of the variance of g that is of one configuration alone
_LEAST = 0.15  # of r
_DISTRUST = 0.4  # prior probability that a hint is worth nothing
_JOINT = 600  # configurations whose truths are drawn together
_SAMPLED, _EACH = 48, 8  # draws of the constants, and of the truth given each


@dataclass(frozen=True)
class Hint:
    """What the trainings say about one hint: probability that it is worth nothing, and its share of what is explained."""

    ignored: float
    weight: float


class Surrogate:
    """Belief about P configurations, from hints and from trainings that ``tell`` adds.

    Args:
        positions_PS: pooling positions, in layers.
        hints_JP: one row a hint; a constant one says nothing.
        reliability_J: share of each hint's variance that is no noise (None: all of it); none agrees with the truth by more
            than its square root, so that is the most it can weigh.
        seed: of the Sobol sequence; the same gives the same belief.

    Everything is a function of what was told, in order. Accuracies are in percent.
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
        self.rest_H, self.own_H, self.agreement_H = _LEAST + (1 - _LEAST) * u_H[3], _OWN * u_H[4] ** 2, np.sqrt(u_H[5])
        self.trust_HJ = np.clip((u_H[6:] - _DISTRUST) / (1 - _DISTRUST), 0, None).T
        self._prior_HP = self.spread_H[:, None] * (self.trust_HJ @ self.hints_JP)
        self._scale_H = (self.spread_H * self.rest_H) ** 2
        self.places: list[int] = []
        self.values: list[float] = []
        self.short: list[bool] = []

    def __len__(self) -> int:
        return len(self.values)

    def tell(self, place: int, value: float, short: bool = False) -> None:
        """Accuracy (percent) of one training of configuration ``place``; ``short`` for a shorter one."""
        self.places.append(place)
        self.values.append(value)
        self.short.append(short)
        self._forget()

    def without_last(self) -> None:
        """Take the last ``tell`` back."""
        for told in (self.places, self.values, self.short):
            told.pop()
        self._forget()

    def _forget(self) -> None:
        for name in ("weight_H", "_told", "mean_P", "deviation_P"):
            self.__dict__.pop(name, None)

    def _kernel(self, rows: np.ndarray, columns: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """[picked draws, rows, columns] covariance of the truths, without m."""
        squared = ((self.positions_PS[rows][:, None] - self.positions_PS[columns]) ** 2).sum(-1)
        own_H, same = self.own_H[picked, None, None], rows[:, None] == columns
        smooth = np.exp(-squared / (2 * self.length_H[picked, None, None] ** 2))
        return self._scale_H[picked, None, None] * ((1 - own_H) * smooth + own_H * same)

    def _whitened(self, picked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Under each picked draw: Cholesky factor [H, N, N], whitened residuals [H, N], logarithm of the likelihood [H]."""
        places, values, short_N = np.array(self.places, int), np.array(self.values), np.array(self.short, bool)
        across = short_N[:, None] != short_N
        shared_HNN = np.where(across, self.agreement_H[picked, None, None], 1.0)
        covariance_HNN = self._kernel(places, places, picked) * shared_HNN + _FLAT * ~across
        covariance_HNN = covariance_HNN + self.noise_H[picked, None, None] ** 2 * np.eye(len(places))
        factor_HNN = np.linalg.cholesky(covariance_HNN)
        scaled_HN = np.where(short_N, self.agreement_H[picked, None], 1.0)
        rest_HN = values - self._centre - scaled_HN * self._prior_HP[picked][:, places]
        rest_HN = np.linalg.solve(factor_HNN, rest_HN[:, :, None])[:, :, 0]
        log_H = -0.5 * (rest_HN**2).sum(1) - np.log(np.diagonal(factor_HNN, axis1=1, axis2=2)).sum(1)
        return factor_HNN, rest_HN, log_H

    @property
    def _centre(self) -> float:
        return float(np.mean(self.values)) if self.values else 0.0

    @cached_property
    def weight_H(self) -> np.ndarray:
        """Posterior weight of every draw of the constants; they add up to 1."""
        log_H = self._whitened(np.arange(DRAWS))[2] if len(self) else np.zeros(DRAWS)
        weight_H = np.exp(log_H - log_H.max())
        return weight_H / weight_H.sum()

    def conditioned(self, picked: np.ndarray, weight_H: np.ndarray) -> _Told:
        """What the trainings say of every configuration under the picked draws, which weigh ``weight_H``."""
        every, short_N = np.arange(len(self.positions_PS)), np.array(self.short, bool)
        factor_HNN, rest_HN, _ = self._whitened(picked)
        scaled_HN = np.where(short_N, self.agreement_H[picked, None], 1.0)
        cross_HNP = self._kernel(np.array(self.places, int), every, picked) * scaled_HN[:, :, None]
        cross_HNP = np.linalg.solve(factor_HNN, cross_HNP + _FLAT * ~short_N[:, None])
        mean_HP = self._centre + self._prior_HP[picked] + np.einsum("hn,hnp->hp", rest_HN, cross_HNP)
        variance_HP = self._scale_H[picked, None] + _FLAT - (cross_HNP**2).sum(1)
        return _Told(picked, weight_H, mean_HP, np.maximum(variance_HP, 1e-12), cross_HNP, factor_HNN, rest_HN)

    @cached_property
    def _told(self) -> _Told:
        """Conditioned under KEPT of the draws, resampled systematically by their weights."""
        cumulated = np.cumsum(self.weight_H)
        drawn = np.searchsorted(cumulated, (np.arange(KEPT) + 0.5) / KEPT * cumulated[-1])
        picked, count = np.unique(drawn, return_counts=True)
        return self.conditioned(picked, count / KEPT)

    @cached_property
    def mean_P(self) -> np.ndarray:
        """Expected accuracy in percent."""
        return self._told.weight_H @ self._told.mean_HP

    @cached_property
    def deviation_P(self) -> np.ndarray:
        """Standard deviation of the truth about ``mean_P``, in points."""
        told = self._told
        second_P = told.weight_H @ (told.variance_HP + (told.mean_HP - self.mean_P) ** 2)
        return np.sqrt(second_P)

    @property
    def noise(self) -> float:
        """Standard deviation between two trainings of one configuration, in points."""
        return float(np.sqrt(self.weight_H @ self.noise_H**2))

    @property
    def agreement(self) -> float:
        """Expected correlation of shorter trainings with whole ones."""
        return float(self.weight_H @ self.agreement_H)

    def hints(self) -> list[Hint]:
        """What each hint is worth by now."""
        explained_H = (self.trust_HJ**2).sum(1) + self.rest_H**2
        ignored_J = self.weight_H @ (self.trust_HJ == 0)
        share_J = self.weight_H @ (self.trust_HJ**2 / explained_H[:, None])
        return [Hint(float(ignored), float(share)) for ignored, share in zip(ignored_J, share_J, strict=True)]

    def better(self, place: int) -> np.ndarray:
        """[P] probability that each configuration is truly better than the one at ``place``; 0 for itself."""
        told = self._told
        here = self._kernel(np.array([place]), np.arange(len(self.positions_PS)), told.picked)[:, 0] + _FLAT
        joint_HP = here - np.einsum("hn,hnp->hp", told.cross_HNP[:, :, place], told.cross_HNP)
        variance_HP = told.variance_HP + told.variance_HP[:, place, None] - 2 * joint_HP
        gap_HP = told.mean_HP - told.mean_HP[:, place, None]
        chance_P = told.weight_H @ ndtr(gap_HP / np.sqrt(np.maximum(variance_HP, 1e-12)))
        chance_P[place] = 0.0
        return chance_P

    def draws(self, places: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """[n, places] truths drawn together, each under constants drawn by their weight."""
        told, found = self._told, []
        picked = generator.choice(len(told.picked), _SAMPLED, p=told.weight_H)
        for h in picked:
            cross_NP = told.cross_HNP[h][:, places]
            covariance = self._kernel(places, places, told.picked[h : h + 1])[0] + _FLAT - cross_NP.T @ cross_NP
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0))
            found.append(told.mean_HP[h, places] + generator.standard_normal((_EACH, len(places))) @ root.T)
        return np.concatenate(found)

    def best(self, generator: np.random.Generator) -> np.ndarray:
        """[P] probability of being the truly best, from draws of the most promising."""
        hits_P = np.zeros(len(self.positions_PS))
        places = np.sort(np.argsort(-(self.mean_P + 2 * self.deviation_P), kind="stable")[:_JOINT])
        drawn = self.draws(places, generator)
        np.add.at(hits_P, places[drawn.argmax(1)], 1)
        return hits_P / len(drawn)

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Each training foretold from all others: [N] expected accuracy and standard deviation of such a training."""
        told = self._told
        inverse_HNN = np.linalg.inv(told.factor_HNN)
        precision_HNN = inverse_HNN.transpose(0, 2, 1) @ inverse_HNN
        whitened_HN = np.einsum("hnm,hn->hm", inverse_HNN, told.rest_HN)
        variance_HN = 1 / np.diagonal(precision_HNN, axis1=1, axis2=2)
        mean_HN = np.array(self.values) - whitened_HN * variance_HN
        mean_N = told.weight_H @ mean_HN
        return mean_N, np.sqrt(told.weight_H @ (variance_HN + (mean_HN - mean_N) ** 2))


@dataclass(frozen=True)
class _Told:
    picked: np.ndarray
    weight_H: np.ndarray
    mean_HP: np.ndarray
    variance_HP: np.ndarray
    cross_HNP: np.ndarray  # whitened covariance of trainings and truths
    factor_HNN: np.ndarray
    rest_HN: np.ndarray  # whitened residuals


def _log_uniform(u: np.ndarray, between: tuple[float, float]) -> np.ndarray:
    low, high = np.log(between)
    return np.exp(low + u * (high - low))
