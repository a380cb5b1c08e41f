"""The setting to use is the most modest one that is as good as the best."""

from __future__ import annotations

from ctbatch.tuning.advice import Knee, choose, is_undecided, knee, slowest
from ctbatch.tuning.figures import Setting
from tests.tuning.figured import figures


def test_the_fewest_requests_that_are_as_good_are_chosen() -> None:
    """Slots belong to the whole account: none is taken that brings nothing."""
    tried = [figures(1, 5_000), figures(8, 39_000), figures(15, 40_000)]
    best = choose(tried)
    assert best is tried[1]
    assert knee(tried, tried[1]) == Knee(8, 15)
    assert Knee(8, 15).text == (
        "the knee is at 8 requests at a time: up to 15, more brings less than 5 %"
    )


def test_where_more_still_brings_more_there_is_no_knee() -> None:
    """It is said that the end of what was tried is not the end of what is possible."""
    tried = [figures(1, 5_000), figures(8, 39_000), figures(15, 75_000)]
    assert choose(tried) is tried[2]
    assert knee(tried, tried[2]) == Knee(None, 15)
    assert Knee(None, 15).text == (
        "there is no knee up to 15 requests at a time: more still brings more"
    )


def test_of_equals_the_one_with_fewer_processes_and_larger_batches_is_chosen() -> None:
    """Processes cost memory, and small batches cost requests."""
    tried = [
        figures(8, 10_000, workers=1),
        figures(8, 10_000, batch_size=500),
        figures(8, 10_000),
    ]
    best = choose(tried)
    assert best is not None
    assert best.setting == Setting(8, 1000, 0)
    assert best.setting.options == "--concurrency 8 --batch-size 1000 --workers 0"


def test_what_is_throttled_is_not_recommended() -> None:
    """The account's limit is shared: speed bought with 429s is taken from others."""
    tried = [figures(4, 10_000), figures(15, 20_000, throttled=30)]
    assert choose(tried) is tried[0]
    assert choose(tried[1:]) is tried[1]


def test_what_is_not_certain_is_not_recommended() -> None:
    """Nor is anything where nothing is certain."""
    tried = [figures(4, 10_000), figures(15, 20_000, certain=False)]
    assert choose(tried) is tried[0]
    assert choose(tried[1:]) is None


def test_what_looks_faster_and_is_not_certain_leaves_it_undecided() -> None:
    """The certain one is not the answer then: whoever followed it would have the slow setting."""
    slow, fast = figures(1, 1000), figures(15, 9000, certain=False)
    assert is_undecided([slow, fast], slow)
    assert not is_undecided([slow, figures(15, 900, certain=False)], slow)


def test_the_slowest_answers_are_found() -> None:
    """They show whether the machine kept up with the emulator."""
    assert slowest([figures(1, 10), figures(2, 10)]) == 200.0
    assert slowest([]) == 0.0


def test_of_nothing_nothing_is_chosen() -> None:
    """A bench that settled no line recommends none of its settings."""
    assert choose([]) is None
    assert choose([figures(1, 0.0, lines=0)]) is None


def test_a_knee_is_looked_for_on_one_curve_only() -> None:
    """Other batch sizes and workers do not bend it, and a single point has none."""
    tried = [figures(1, 90, batch_size=10), figures(4, 100, batch_size=10), figures(15, 75_000)]
    assert knee(tried, tried[0]) == Knee(None, 4)
    assert knee(tried, tried[2]) is None
    assert knee([*tried[:1], figures(4, 100, batch_size=10, certain=False)], tried[0]) is None
