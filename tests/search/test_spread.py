"""Which trials cannot be told from the best, and which of them is taken."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from fer_experiments.config import PREFER
from fer_experiments.config.compose import compose
from fer_experiments.report.found import best, board
from fer_experiments.report.record import Record
from fer_experiments.search import leaderboard
from fer_experiments.search.identity import identity_of
from fer_experiments.search.spread import PREFERENCES, taken, tied
from fer_experiments.search.state import State, digest_of, load_state
from fer_experiments.search.trials import Trial


def trial(number: int, scores: list[float], **more: Any) -> Trial:
    score = statistics.fmean(scores)
    ended: dict[str, Any] = {"epochs": 9, "best_epoch": 1, "seconds": 2.0, "run_id": f"{number:032}", "told": score}
    ended |= {"metrics": {f"final/val_accuracy_{end}": 0.5 for end in ("low", "high")}}
    kept = scores if len(scores) > 1 else []
    return Trial(number=number, status="finished", score=score, scores=kept, **ended, **more)


def state(*trials: Trial, prefer: str = "best", direction: str = "max", **identity: Any) -> State:
    order = [place for each in trials for place in (each.number, each.number)]
    known = {"sweep.direction": direction, **identity}
    return State(f"s-{digest_of(known)}", "s", known, trials=list(trials), order=order, prefer=prefer)


def numbers(found: list[Trial]) -> list[int]:
    return [each.number for each in found]


def test_a_difference_within_its_standard_error_is_none():
    # Standard errors of 0.01 / sqrt(3) each: of a difference 0.00816.
    best, near, far = ([mean - 0.01, mean, mean + 0.01] for mean in (0.9, 0.8919, 0.8917))
    assert numbers(tied(state(trial(0, far), trial(1, best), trial(2, near)))) == [1, 2]


def test_less_is_better_where_the_direction_says_so():
    best, near, far = ([mean - 0.01, mean, mean + 0.01] for mean in (0.3, 0.308, 0.309))
    assert numbers(tied(state(trial(0, far), trial(1, best), trial(2, near), direction="min"))) == [1, 2]


def test_trials_on_folds_are_compared_fold_by_fold():
    hard_and_easy = [0.6, 0.9, 0.75]
    other = [0.59, 0.89, 0.741]
    trials = (trial(0, hard_and_easy), trial(1, other))
    assert numbers(tied(state(*trials))) == [0, 1]
    assert numbers(tied(state(*trials, **{"data.fold": "all"}))) == [0]


def test_without_a_spread_only_equals_are_tied_and_nothing_is_said():
    found = state(trial(0, [0.9]), trial(1, [0.89]), trial(2, [0.9]))
    assert numbers(tied(found)) == [0, 2] and leaderboard.choice(found) == []
    assert tied(state()) == [] and taken(state()) is None


@pytest.mark.parametrize(("prefer", "number"), [("best", 0), ("simple", 2), ("fast", 1)])
def test_a_preference_chooses_among_those_that_cannot_be_told_from_the_best(prefer: str, number: int):
    spread = [-0.05, 0.0, 0.05]
    trials = [
        trial(0, [0.9 + s for s in spread], parameters=300, fit_s=3.0),
        trial(1, [0.89 + s for s in spread], parameters=200, fit_s=1.0),
        trial(2, [0.88 + s for s in spread], parameters=100, fit_s=2.0),
        trial(3, [0.5 + s for s in spread], parameters=1, fit_s=0.1),  # worse: it can be told
        trial(4, [0.87 + s for s in spread]),  # nothing is known of it
    ]
    chosen = taken(state(*trials, prefer=prefer))
    assert chosen is not None and chosen.number == number
    assert tuple(PREFERENCES) == PREFER


@pytest.fixture
def written(tmp_path: Path) -> tuple[State, Path]:
    """A sweep of which trial 1 is simpler than the best and cannot be told from it, with its leaderboard."""
    config = compose(["sweep=quick", "data=demo", "sweep.repeats=3", "sweep.prefer=simple"])
    identity = identity_of(config, {})
    trials = [trial(0, [0.8, 0.9, 1.0], parameters=300), trial(1, [0.79, 0.9, 1.0], parameters=200)]
    trials.append(trial(2, [0.1, 0.2, 0.3], parameters=100))
    for each, width in zip(trials, ([32], [], [128, 64]), strict=True):
        each.values = {"head.l2": 1e-3, "head.dense_widths": width, "training.learning_rate": 1e-3}
    found = state(*trials, prefer="simple")
    found.identity = identity
    leaderboard.write(found, config, tmp_path)
    return found, tmp_path


def test_the_leaderboard_shows_the_spread_and_what_is_tied(written: tuple[State, Path]):
    found, folder = written
    table = leaderboard.table(found, found.settings)
    assert table["tied"].tolist() == ["best", "yes", "no"] and table["parameters"].tolist() == [300, 200, 100]
    assert table["std"].tolist() == pytest.approx([statistics.stdev(t.scores) for t in found.trials])
    assert "| tied |" in (folder / "leaderboard.md").read_text()
    single = state(trial(0, [0.9]))
    assert not {"std", "tied", "parameters"} & set(leaderboard.table(single, found.settings))


def test_best_yaml_and_what_is_said_follow_the_preference(written: tuple[State, Path]):
    found, folder = written
    text = (folder / "best.yaml").read_text()
    assert text.startswith("# Trial 1 of sweep ") and "(sweep.prefer=simple)\n" in text and "dense_widths: []" in text
    first, second = leaderboard.choice(found)
    assert first == "not to be told from it, by the standard error of the difference: trial 1"
    assert second == "taken of these: trial 1, which has the fewest head parameters (sweep.prefer=simple)"


def test_the_report_shows_the_same(written: tuple[State, Path]):
    found, _ = written
    nothing: dict[str, Any] = {"counts": None, "cleaning": None, "hardware": None, "best_config": None, "times": {}}
    nothing |= {"curves": {}, "matrices": {}, "seeds": None, "killed": []}
    record = Record(state=found, sweep=found.settings, run_id="a" * 32, status="finished", **nothing)
    assert "Trial 1, final/val_accuracy 0.8967 ± " in best(record) and "Taken of these: trial 1" in best(record)
    assert "<td>best</td>" in board(record) and "Tied:" in board(record)


def test_a_saved_spread_comes_back_and_one_that_cannot_be_is_refused(tmp_path: Path):
    saved = state(trial(0, [0.8, 0.9], parameters=7), prefer="fast")
    saved.trials[0].values, saved.trials[0].raw = {}, {}
    saved.save(tmp_path)
    assert load_state(tmp_path) == saved
    for kept, damaged in (("[0.8, 0.9]", "[0.8, 0.7]"), ("[0.8, 0.9]", "[NaN, 0.9]"), ('"fast"', '"cheap"')):
        text = (tmp_path / "state.json").read_text()
        (tmp_path / "state.json").write_text(text.replace(kept, damaged))
        with pytest.raises(Exception, match="not a sweep's state"):
            load_state(tmp_path)
        (tmp_path / "state.json").write_text(text)
