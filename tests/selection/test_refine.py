"""The refine strategy: proposals, stopping and batches."""

import numpy as np
import pytest

from poolwise import tables
from poolwise.config import Config
from poolwise.selection.refine import _stopped
from poolwise.selection.strategies import End, create
from poolwise.selection.strategies.refine import PAIRS, REDUCTION
from poolwise.spaces import Pooling, PoolingSpace

SPACE, DEFAULT = PoolingSpace(10, 2), Pooling.parse("4-3-3")


def make(name="refine", trials=8, steps=90, **more):
    cost = lambda _pooling, length: length  # noqa: E731
    return create(name, SPACE, seed=0, macs=10**9, steps=steps, cost=cost, trials=trials, default=DEFAULT, **more)


def bowl(pooling, steps=90):
    """Return an accuracy with its maximum at 6-2-2."""
    first, second = pooling.positions
    return 0.7 - 0.01 * (first - 6) ** 2 - 0.01 * (second - 8) ** 2 - 0.3 * (1 - steps / 90)


def play(method):
    asks = []
    while (ask := method.ask()) is not None:
        asks.append(ask)
        method.tell(*ask, bowl(ask.pooling, ask.steps))
    return asks


def test_default_is_trained_first_within_the_number_of_trials():
    for name in ("refine", "top"):
        asks = play(make(name, trials=5))
        assert asks[0].pooling == DEFAULT
        assert len(asks) == 5


def test_best_configuration_of_a_smooth_function_is_chosen():
    method = make(trials=10)
    play(method)
    assert SPACE[int(method.ranking().argmax())] == Pooling.parse("6-2-2")


def test_good_hint_is_used_and_misleading_one_ignored():
    good = make(trials=4, hints={"truth": bowl})
    assert Pooling.parse("6-2-2") in {ask.pooling for ask in play(good)}
    misleading = make(trials=11, hints={"lie": lambda pooling: -bowl(pooling)})
    play(misleading)
    assert misleading.belief.hints()[0].ignored > 0.8
    assert bowl(SPACE[int(misleading.ranking().argmax())]) > 0.67


def test_stops_when_no_better_configuration_is_likely():
    method = make(trials=40, margin=3.0, hints={"truth": bowl})
    asks = play(method)
    assert 3 <= len(asks) < 20
    assert method.sure
    assert method.doubt(3.0) < 0.05
    assert len(play(make(trials=8, margin=None, hints={"truth": bowl}))) == 8


def test_batch_proposes_distinct_configurations():
    method = make(trials=9)
    method.tell(*method.ask(), 0.6)
    batch = method.ask_all(3)
    assert len({ask.pooling for ask in batch}) == 3
    assert method.ask_all(3) == batch
    before = len(method.belief)
    for ask in batch:
        method.tell(*ask, bowl(ask.pooling))
    assert len(method.belief) == before + 3


def test_large_budget_uses_shorter_trainings_as_fractions():
    asks = play(make(trials=14))
    reduced = [ask for ask in asks if ask.steps < 90]
    assert {ask.steps for ask in reduced} == {90 // REDUCTION}
    assert len(reduced) >= PAIRS
    assert sum(ask.steps for ask in asks) / 90 <= 14 + 1e-6
    assert {ask.steps for ask in play(make(trials=8))} == {90}


def test_last_trainings_compare_the_best_with_its_rival():
    table, generator = tables.load("resnet20-cifar10-published"), np.random.default_rng(0)
    scores = dict(zip(SPACE, table.column("supernets4_mean"), strict=True))
    method = make(trials=10, hints={"scores": scores.__getitem__})
    asks = []
    while (ask := method.ask()) is not None:
        asks.append(ask)
        method.tell(*ask, (table.query(ask.pooling) + generator.normal(0, 0.13)) / 100)
    twice = [ask for ask in asks if ask.seed > 1]
    assert twice
    assert all(table.query(ask.pooling) > 91.4 for ask in twice)


def test_shuffled_hints_get_little_weight():
    scores = {pooling: float(pooling.positions[0]) for pooling in SPACE}
    other = np.random.default_rng(0).permutation(list(scores.values()))
    shuffled = dict(zip(SPACE, other, strict=True))
    trusted, doubted = (make(hints={"scores": hint.__getitem__}) for hint in (scores, shuffled))
    assert abs(trusted.belief.hints_JP).max() > 3 * abs(doubted.belief.hints_JP).max()


@pytest.mark.parametrize(
    ("trials", "margin", "end", "message"),
    [
        (8, None, End.BUDGET, "8 trainings are done; the probability that a configuration is better by more than"),
        (14, None, End.BUDGET, "trainings are done, which use the budget of 14 full ones; the probability"),
        (12, 0.3, End.DECISION, "the probability that a configuration is better by more than 0.3 points is below 5%"),
    ],
)
def test_the_report_says_why_refinement_ended(trials, margin, end, message):
    strategy = make(trials=trials, margin=margin, hints={"truth": bowl})
    assert strategy.end is None
    asks = play(strategy)
    config = Config.from_flat(trials=trials, margin=margin or 0.0)
    assert strategy.end is end
    assert message in _stopped(config, strategy, len(asks), 0.25)
    assert (len(asks) > trials) == (trials == 14)


def test_a_strategy_that_ends_by_itself_is_reported():
    strategy = make(name="short-all", trials=8)
    strategy.length = 0
    assert play(strategy) == []
    assert strategy.end is End.DECISION
    assert _stopped(Config.from_flat(refiner="short-all"), strategy, 0, 0.25).startswith(
        "short-all proposes no further training after 0; the probability"
    )
