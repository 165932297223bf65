"""The gate before the registry: conditions that a tested model must hold, each with its figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fer_experiments.config import GateConfig, close
from fer_experiments.errors import UserError
from fer_experiments.evaluation.bootstrap import mcnemar, paired_bootstrap
from fer_experiments.evaluation.corruptions import CORRUPTIONS
from fer_experiments.evaluation.metrics import METRICS, direction
from fer_experiments.evaluation.robustness import UNCHANGED, Part
from fer_experiments.registry.sealed import Outcome
from fer_experiments.tracking.models import Version

EVERY = "every"  # the key in gate.recall, slices and worse for the classes and slices that are not named

LEAST = 0.001  # alpha of a bootstrap, which draws ten times as many resamples as it takes to see it

MOST = {"log_loss": math.inf, "brier_score": 2.0}  # of a metric, else 1

NO_IMAGE = "the test split has no image of it"


@dataclass(frozen=True)
class Condition:
    """What is asked, what was found, and whether that will do."""

    asked: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds ' if self.holds else 'FAILS '} {self.asked}: {self.found}"


@dataclass(frozen=True)
class Rival:
    """The champion, to compare with. probabilities: [n, classes] on the same test images; None: not to be had, and
    `missing` says why.

    version: to ask it about other images.
    """

    name: str
    probabilities: np.ndarray | None
    version: Version | None = None
    missing: str = ""


def check_gate(gate: GateConfig, classes: tuple[str, ...], slices: Sequence[str] = (), *, corrupt: bool = True) -> None:
    """Refuses conditions that no model could be asked for; before anything is computed.

    slices: the names of those that there are. corrupt: corruptions will be asked for.

    Raises:
        UserError: an unknown metric, class or slice, or an alpha that is no probability.
    """
    for key, names in (("floors", gate.floors), ("ceilings", gate.ceilings), ("metric", [gate.metric])):
        for name in names:
            if name not in METRICS:
                raise UserError(
                    f"gate.{key}: {name} is no metric{close(name, METRICS) or '; take ' + ', '.join(METRICS)}"
                )
    for name, limit in gate.floors.items():
        if limit > (most := MOST.get(name, 1.0)):
            raise UserError(f"gate.floors.{name}={limit:g}: no model has more than {most:g}; say a share, such as 0.93")
    for name, limit in gate.ceilings.items():
        if limit < 0:
            raise UserError(f"gate.ceilings.{name}={limit:g}: no model has less than 0")
    for name in gate.recall:
        if name not in (*classes, EVERY):
            raise UserError(f"gate.recall: {name} is no class; take {', '.join(classes)} or {EVERY}")
    for key, names in (("slices", gate.slices), ("worse", gate.worse)):
        for name in names:
            if name in CORRUPTIONS and not corrupt:
                raise UserError(
                    f"gate.{key}: {name} is not asked for with promote.corruptions=0; give a number of images"
                )
            if name not in (*slices, *CORRUPTIONS, EVERY):
                known = close(name, (*slices, *CORRUPTIONS)) or f"; take {', '.join(slices)}, a corruption or {EVERY}"
                raise UserError(f"gate.{key}: {name} is no slice and no corruption{known}")
    if not 0 < gate.alpha < 1:
        raise UserError(f"gate.alpha={gate.alpha}: must be between 0 and 1")
    if gate.compare == "bootstrap" and gate.alpha < LEAST:
        raise UserError(f"gate.alpha={gate.alpha}: gate.compare=bootstrap tells none below {LEAST}; take mcnemar")


def judge(
    gate: GateConfig,
    tested: Outcome,
    mb: float,
    latency_ms: float,
    rival: Rival | None,
    parts: Sequence[Part] = (),
) -> list[Condition]:
    """Every condition of the gate; rival None: there is no champion yet. parts: slices and corruptions."""
    by_name = {part.name: part for part in parts}
    asked = [*_conditions(gate, tested, mb, latency_ms), *_floors_of_parts(gate, by_name)]
    if gate.compare == "none" or rival is None:
        return asked
    compared = [*asked, _compared(gate, tested, rival)]
    return compared if rival.probabilities is None else [*compared, *_compared_parts(gate, by_name, rival)]


def _conditions(gate: GateConfig, tested: Outcome, mb: float, latency_ms: float) -> Iterator[Condition]:
    for name, limit in gate.floors.items():
        value = tested.scores[name].value
        yield Condition(f"{name} at least {limit:g}", f"{value:.4f}", value >= limit)  # nan does not hold
    for name, limit in gate.ceilings.items():
        value = tested.scores[name].value
        yield Condition(f"{name} at most {limit:g}", f"{value:.4f}", value <= limit)
    for name, share in tested.recall.items():
        least = gate.recall.get(name, gate.recall.get(EVERY))
        if least is not None:
            yield Condition(f"recall of {name} at least {least:g}", f"{share:.4f}", share >= least)
    if gate.max_mb is not None:
        yield Condition(f"at most {gate.max_mb:g} MB", f"{mb:.1f} MB", mb <= gate.max_mb)
    if gate.max_latency_ms is not None:
        asked = f"at most {gate.max_latency_ms:g} ms for one image"
        yield Condition(asked, f"{latency_ms:.1f} ms", latency_ms <= gate.max_latency_ms)


def _limits(given: Mapping[str, float], parts: Mapping[str, Part]) -> dict[str, float]:
    """The limit of each part that a gate asks for."""
    every = {name: given[EVERY] for name in parts if EVERY in given and name not in (*CORRUPTIONS, UNCHANGED)}
    return every | {name: limit for name, limit in given.items() if name != EVERY}


def _floors_of_parts(gate: GateConfig, parts: Mapping[str, Part]) -> Iterator[Condition]:
    for name, least in _limits(gate.slices, parts).items():
        part = parts.get(name)
        found = f"{part.accuracy.value:.4f} of {part.images:,} images" if part else NO_IMAGE
        yield Condition(f"accuracy on {name} at least {least:g}", found, bool(part and part.accuracy.value >= least))


def _compared_parts(gate: GateConfig, parts: Mapping[str, Part], rival: Rival) -> Iterator[Condition]:
    """Nowhere much worse than the champion: by more than the limit, and not by chance however many are looked at."""
    limits = _limits(gate.worse, parts)
    alpha = gate.alpha / max(len(limits), 1)  # Bonferroni
    for name, limit in limits.items():
        asked = f"on {name} at most {limit:g} worse than the champion, {rival.name} (p < {alpha:.2g})"
        part = parts.get(name)
        if part is None or part.worse is None or part.p_value is None:
            found = NO_IMAGE if part is None else f"{rival.name} could not be asked; gate.compare=none goes without"
            yield Condition(asked, found, False)
            continue
        by, low, high = part.worse.value, part.worse.low, part.worse.high
        found = f"{by:.4f} ({low:.4f} to {high:.4f}) on {part.images:,} images, McNemar's exact p = {part.p_value:.3g}"
        yield Condition(asked, found, not (by > limit and part.p_value < alpha))


def _compared(gate: GateConfig, tested: Outcome, rival: Rival) -> Condition:
    """Not worse than the champion, by a paired test on the same images."""
    if rival.probabilities is None:
        asked = f"not worse than the champion, {rival.name}"
        found = f"{rival.missing}, so that they cannot be compared; gate.compare=none goes without"
        return Condition(asked, found, False)
    labels, ours, theirs = tested.test.labels, tested.probabilities, rival.probabilities
    asked = f"not worse than the champion, {rival.name} (p < {gate.alpha:g})"
    if gate.compare == "mcnemar":
        test = mcnemar(labels, ours, theirs)
        found = (
            f"right where it is wrong {test.only_first} times, wrong where it is right {test.only_second} times, "
            f"McNemar's exact p = {test.p_value:.3g}"
        )
        worse = test.only_first < test.only_second and test.p_value < gate.alpha
        return Condition(asked, found, not worse)
    resamples = max(2000, math.ceil(10 / gate.alpha))  # p is at least one of so many
    # Its p is small when the champion is better.
    difference = paired_bootstrap(labels, theirs, ours, gate.metric, resamples=resamples)
    if math.isnan(difference.value) or math.isnan(difference.low):
        return Condition(asked, f"{gate.metric} cannot be computed on these images", False)
    value, high, low = (0 - each for each in (difference.value, difference.low, difference.high))  # no -0.0
    better = "higher" if direction(gate.metric) == "max" else "lower"
    found = (
        f"{gate.metric} differs by {value:+.4f} ({low:+.4f} to {high:+.4f}), "
        f"{better} is better, p = {difference.p_value:.3g} that it is worse by chance"
    )
    return Condition(asked, found, difference.p_value >= gate.alpha)
