"""A power law through a learning curve, and how much more images would gain, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftexp.probe.curve import Errors

Floats = npt.NDArray[np.float64]

# Exponents: 0.07 to 0.35 were measured for deep networks (Hestness et al., arXiv 1712.00409), 0.5 to 1 follow from
# theory for linear heads (Viering and Loog, arXiv 2103.10948).
EXPONENTS = np.linspace(0.1, 1.5, 29)
# The error at the largest size, in standard errors from the measured one, and the share of it that more images remove.
LEVELS = np.linspace(-4, 4, 33)
REMOVED = np.linspace(0, 1, 51)
# By how much the exponent may change over a doubling (a standard deviation): no curve follows one law for ever.
DRIFTS = (0.05, 0.1, 0.2)
# Degrees of freedom of Student's t for the residuals: one size far from the law does not decide the fit (Lange, Little
# and Taylor, 1989).
FREEDOM = 4.0
NUM_LAWS = 4_000


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Laws ``error(n) = floor + rest * (n / largest) ** -exponent``, as many of a kind as the measured curve allows it.

    Attributes:
        floor, rest, exponent: float64 [L], of each law.
        bend: float64 [L], what each leaves its course by beyond what was measured.
        largest: the largest size that was measured.
    """

    floor: Floats
    rest: Floats
    exponent: Floats
    bend: Floats
    largest: float

    @classmethod
    def fit(cls, errors: Errors) -> PowerLaw:
        """Draw laws by how well they fit.

        The inverse power law with a floor is that of Figueroa et al. (2012, BMC Medical Informatics and Decision
        Making 12:8). Sizes count by the inverse of their covariance, which the resamples give: they share images, so
        their errors move together. The exponent may drift, as a random walk over doublings (the local linear trend of
        Harvey, 1989): so small sizes say less of what is to come than large ones, and what is to come has a drift of
        its own. Laws of a grid are drawn by their likelihood, none is picked: those that agree where it was measured
        differ in where they lead.

        Args:
            errors: the measured curve.
        """
        largest, covariance = float(errors.sizes[-1]), _covariance(errors)
        removed, exponent = (part.ravel() for part in np.meshgrid(REMOVED, EXPONENTS, indexing="ij"))
        prior = np.where(removed == 1, len(REMOVED) - 1.0, 1.0)  # half of all laws have no floor
        shapes = 1 - removed[:, None] + removed[:, None] * (errors.sizes / largest) ** -exponent[:, None]
        levels = errors.values[-1] + LEVELS * covariance[-1, -1] ** 0.5
        levels = levels[levels >= 0]
        residuals = ((levels[:, None, None] * shapes).reshape(-1, len(errors.sizes)) - errors.values).T[::-1]
        away = np.outer(errors.values, errors.values) * _drifted(np.log2(largest / errors.sizes))
        log = []
        for drift in DRIFTS:
            # From the largest size down, so that a small one far from the law spoils no residual but its own.
            root = np.linalg.cholesky((covariance + drift**2 * away)[::-1, ::-1])
            whitened = np.linalg.solve(root, residuals)
            log.append(-(FREEDOM + 1) / 2 * np.log1p(whitened**2 / FREEDOM).sum(axis=0) - np.log(np.diag(root)).sum())
        weights = np.exp(np.concatenate(log) - np.max(log)) * np.tile(prior, len(DRIFTS) * len(levels))
        number, level, shape = np.unravel_index(_drawn(weights), (len(DRIFTS), len(levels), len(shapes)))
        rest = levels[level] * removed[shape]
        normal = np.random.default_rng(0).standard_normal(NUM_LAWS)
        bend = np.array(DRIFTS)[number] * normal * float(_drifted(np.ones(1))[0, 0]) ** 0.5
        return cls(levels[level] - rest, rest, exponent[shape], bend, largest)

    def error(self, size: float) -> Floats:
        """What each law says of a number of images: float64 [L]."""
        doublings = max(float(np.log2(size / self.largest)), 0.0)
        told: Floats = self.floor + self.rest * (size / self.largest) ** -self.exponent
        told *= np.maximum(1 + self.bend * doublings**1.5, 0)
        return told


def quantiles(values: Floats) -> tuple[float, float, float]:
    """The lower end of the 95 % band, the median, and the upper end."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return float(low), float(middle), float(high)


def _drifted(doublings: Floats) -> Floats:
    """The covariance of relative errors so many doublings away, if the exponent is a random walk of unit variance.

    It is that of integrated Brownian motion, ``s^2 (3 t - s) / 6`` for ``s <= t``, times log(2)^2.
    """
    near, far = np.minimum.outer(doublings, doublings), np.maximum.outer(doublings, doublings)
    covariance: Floats = np.log(2) ** 2 * near**2 * (3 * far - near) / 6
    return covariance


def _drawn(weights: Floats) -> npt.NDArray[np.int64]:
    """``NUM_LAWS`` indices, by these weights, at equal distances of the cumulative weight, in a random order."""
    cumulative = np.cumsum(weights)
    places = (np.random.default_rng(0).permutation(NUM_LAWS) + 0.5) / NUM_LAWS
    found: npt.NDArray[np.int64] = np.searchsorted(cumulative, places * cumulative[-1])
    return found


def _covariance(errors: Errors) -> Floats:
    """The covariance of the errors of all sizes, float64 [K, K]; where none is wrong, one might have been."""
    covariance: Floats = np.cov(errors.draws[np.isfinite(errors.draws).all(axis=1)].T)
    lacking = np.sqrt(np.maximum(errors.of_one**2 - np.diag(covariance), 0))
    covariance += np.outer(lacking, lacking) + np.diag(lacking**2)  # at all sizes, or at some
    covariance += 1e-3 * np.diag(covariance).max() * np.eye(len(covariance))
    return covariance


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much an error falls with more images.

    Attributes:
        more: how many images more.
        gain: the median of the laws.
        low, high: the 95 % band of the gain in the long run.
        measured_low, measured_high: that of the gain that one set of as many images as there are now would show.
    """

    more: int
    gain: float
    low: float
    high: float
    measured_low: float
    measured_high: float


def gain_of(law: PowerLaw, errors: Errors, now: int, more: int) -> Gain:
    """How much the error falls from ``now`` images to ``more`` above that; in the long run it does not rise.

    Args:
        law: of the error.
        errors: the measured curve.
        now: the number of images that there are.
        more: at most as many.
    """
    assert 0 < more <= now, "one step ahead, not ten"
    told = np.maximum(law.error(now) - law.error(now + more), 0)
    low, gain, high = quantiles(told)
    normal = np.random.default_rng(1).standard_normal(len(told))  # not those that bend the laws
    noise = _noise(errors, (now + more) / now) * normal
    measured_low, _, measured_high = quantiles(told + noise)
    return Gain(more, gain, low, high, measured_low, measured_high)


def _noise(errors: Errors, ratio: float) -> float:
    """The standard error of a gain on one set of images, from the largest size and the one nearest to a step before.

    Both heads are scored on the same images, and the one has seen what the other has.
    """
    before = int(np.abs(np.log(errors.sizes[:-1] * ratio / errors.sizes[-1])).argmin())
    return max(float(np.nanstd(errors.single[:, before] - errors.single[:, -1])), errors.of_one)


def still_rises(errors: Errors) -> bool:
    """Whether the error has fallen between about half of the images and all, in 97.5 % of the resamples."""
    half = int(np.abs(errors.sizes - errors.sizes[-1] / 2).argmin())
    fallen = errors.draws[:, half] - errors.draws[:, -1]
    return bool(np.nanquantile(fallen, 0.025) > 0)
