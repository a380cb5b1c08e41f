"""One batch against a scripted service: what is sent next, and what each record ends as."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbatch.api.wire import Entry
from ctbatch.models import Batch, Counts, Span, State
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.settlement import MAX_AMBIGUOUS, MAX_TRANSIENT, Settlement
from ctbatch.settings import OnAmbiguous


def profile(user: object, **data: object) -> bytes:
    """A line that may be applied twice."""
    return orjson.dumps({"type": "profile", "identity": user, "profileData": data or {"a": 1}})


def event(user: object) -> bytes:
    """A line that may not."""
    return orjson.dumps({"type": "event", "identity": user, "evtName": "Bought", "ts": 1700000000})


def batch_of(*lines: bytes) -> Batch:
    """A batch of lines."""
    data = b"".join(line + b"\n" for line in lines)
    return Batch(Span(0, 1, len(lines), 0, len(data)), data)


def settle(
    *lines: bytes, policy: OnAmbiguous = OnAmbiguous.AUTO, recorded: Recorded | None = None
) -> Settlement:
    """The settlement of a batch of lines."""
    batch = batch_of(*lines)
    return Settlement(batch, check(batch, Rules()), policy, recorded)


def sent(settlement: Settlement) -> tuple[int, ...]:
    """The records of the next request."""
    return settlement.piece.records if settlement.piece else ()


def refusal(number: int, code: int = 515, words: str = "not valid.") -> Entry:
    """An entry that names the record of the request, from 1."""
    return Entry(number, code, words)


def states(settlement: Settlement) -> dict[State, list[int]]:
    """The refused line indexes by state."""
    found: dict[State, list[int]] = {}
    for item, _ in settlement.take_refusals():
        found.setdefault(item.state, []).append(item.index)
    return found


def test_a_believed_reply_settles_everything() -> None:
    """Processed, unprocessed, invalid and blank lines add up to the span."""
    settlement = settle(profile(1), b"nonsense", b"", profile(2), profile(3))
    settlement.believed([refusal(2)])
    assert settlement.piece is None
    assert settlement.counts == Counts(processed=2, unprocessed=1, invalid=1, blank=1)
    assert states(settlement) == {State.INVALID: [1], State.UNPROCESSED: [3]}


def test_ambiguous_records_are_split_by_safety() -> None:
    """Events become unknown, profiles go again."""
    settlement = settle(profile(1), event(2), profile(3))
    settlement.ambiguous("timeout", accepted=0)
    assert sent(settlement) == (0, 2)
    assert settlement.pending == {0, 2}
    settlement.believed([])
    assert settlement.counts == Counts(processed=2, unknown=1)


@pytest.mark.parametrize(
    ("policy", "left", "unknown"), [(OnAmbiguous.HOLD, (), 2), (OnAmbiguous.RESEND, (0, 1), 0)]
)
def test_the_policy_decides(policy: OnAmbiguous, left: tuple[int, ...], unknown: int) -> None:
    """``hold`` repeats nothing, ``resend`` everything."""
    settlement = settle(profile(1), event(2), policy=policy)
    settlement.ambiguous("reset", accepted=0)
    assert sent(settlement) == left
    assert settlement.counts.unknown == unknown


def test_code_555_takes_later_records_of_the_user_along() -> None:
    """A record that is sent again is followed by the later ones of its identity, in order."""
    settlement = settle(profile("a"), profile("b"), profile("a", x=2), profile("c"))
    settlement.believed([refusal(1, code=555)])
    assert sent(settlement) == (0, 2)
    assert settlement.counts.processed == 2
    settlement.believed([])
    assert settlement.counts == Counts(processed=4)


def test_code_555_is_final_where_a_repetition_is_not_safe() -> None:
    """The record itself, or a later one of its user, may not be applied twice."""
    alone = settle(event("a"), profile("b"))
    alone.believed([refusal(1, code=555)])
    assert alone.counts == Counts(processed=1, unprocessed=1)
    followed = settle(profile("a"), event("a"))
    followed.believed([refusal(1, code=555)])
    assert followed.counts == Counts(processed=1, unprocessed=1)


def test_code_555_is_bounded() -> None:
    """A record that never passes ends unprocessed with its code."""
    settlement = settle(profile("a"))
    for _ in range(MAX_TRANSIENT):
        settlement.believed([refusal(1, code=555)])
    assert settlement.piece is None
    assert settlement.take_refusals()[0][0].code == 555


def test_a_missing_number_is_searched_by_halves() -> None:
    """Records that may be repeated go again until the refused one is known; others are unknown."""
    settlement = settle(*(profile(n) for n in range(8)))
    poison, requests = 5, 1
    settlement.believed([Entry(None, 515, "bad")])
    while settlement.piece is not None:
        requests += 1
        settlement.believed([Entry(None, 515, "bad")] if poison in sent(settlement) else [])
    assert states(settlement) == {State.UNPROCESSED: [poison]}
    assert settlement.counts == Counts(processed=7, unprocessed=1)
    assert requests <= 1 + 2 * 3
    unsafe = settle(event(1), event(2))
    unsafe.believed([Entry(None, 515, "bad")])
    assert unsafe.counts == Counts(unknown=2)


def _isolate(settlement: Settlement, poison: set[int], *, canary: bool = False) -> int:
    """Answer 400 to each request with a poison record; returns the number of requests."""
    accepted = requests = 0
    while settlement.piece is not None:
        requests += 1
        assert requests < 400
        if poison.intersection(sent(settlement)):
            settlement.refused(400, "Malformed", accepted=accepted, canary=canary and not accepted)
            if settlement.hopeless:
                break
        else:
            accepted += 1
            settlement.believed([])
    return requests


@pytest.mark.parametrize("canary", [False, True])
@pytest.mark.parametrize("poison", [{0}, {499}, {999}, {3, 700}])
def test_culprits_are_found_by_halving(poison: set[int], canary: bool) -> None:
    """About 2·log2(n) requests each; everybody else arrives."""
    settlement = settle(*(profile(n) for n in range(1000)))
    requests = _isolate(settlement, poison, canary=canary)
    assert states(settlement) == {State.UNPROCESSED: sorted(poison)}
    assert settlement.counts == Counts(processed=1000 - len(poison), unprocessed=len(poison))
    assert requests <= 8 + 22 * len(poison)


def test_nobody_is_blamed_without_evidence() -> None:
    """If nothing is accepted, the canary's probes end in hopelessness, not in blame."""
    settlement = settle(*(profile(n) for n in range(20)))
    _isolate(settlement, set(range(20)), canary=True)
    assert settlement.hopeless
    assert settlement.counts == Counts()
    single = settle(profile(1))
    for _ in range(12):
        single.refused(400, "Malformed", accepted=7, canary=False)
    assert single.counts == Counts()
    single.refused(400, "Malformed", accepted=8, canary=False)
    assert single.counts == Counts(unprocessed=1)


def test_too_large_is_halved() -> None:
    """413 blames nobody until a record stands alone."""
    settlement = settle(profile(1), profile(2), profile(3))
    settlement.too_large(413, "")
    assert sent(settlement) == (0, 1)
    settlement.believed([])
    settlement.too_large(413, "")
    assert settlement.counts == Counts(processed=2, unprocessed=1)


def test_endless_ambiguity_among_believed_replies_is_isolated() -> None:
    """A record that never gets an answer ends unknown; the others of its batch arrive."""
    settlement = settle(*(profile(n) for n in range(16)))
    requests = 0
    while settlement.piece is not None:
        requests += 1
        if 11 in sent(settlement):
            settlement.ambiguous("timeout", accepted=requests)
        else:
            settlement.believed([])
    assert states(settlement) == {State.UNKNOWN: [11]}
    assert requests <= MAX_AMBIGUOUS + 4 * 4
    patient = settle(profile(1))
    for _ in range(50):
        patient.ambiguous("timeout", accepted=0)
    assert sent(patient) == (0,)


def test_an_outage_costs_one_record() -> None:
    """A piece that is cut to one record puts only that one at risk."""
    settlement = settle(event(1), event(2), event(3))
    assert not settlement.is_safe
    settlement.cut(1)
    assert settlement.on_wire == {0}
    settlement.ambiguous("reset", accepted=0)
    assert settlement.counts == Counts(unknown=1)
    assert sent(settlement) == (1, 2)


def test_what_is_refused_without_being_sent_goes_again() -> None:
    """Throttled: the same piece, after a longer pause each time."""
    settlement = settle(profile(1))
    settlement.again()
    settlement.again()
    assert settlement.piece is not None
    assert settlement.piece.tries == 2


def test_a_recorded_batch_goes_on_where_it_stood() -> None:
    """What was settled stays; what may be on the wire follows the policy; the rest goes out."""
    lines = (profile(1), event(2), event(3), profile(4))
    recorded = Recorded(
        span=Span(0, 1, 4, 0, 1),
        done=False,
        digest=b"",
        counts=Counts(processed=1),
        pending=frozenset({1, 2, 3}),
        maybe=frozenset({1, 3}),
    )
    settlement = settle(*lines, recorded=recorded)
    assert sent(settlement) == (2, 3)
    settlement.believed([])
    assert settlement.counts == Counts(processed=3, unknown=1)


def test_words_of_a_reply_are_cleaned() -> None:
    """What the service says of a record is kept without the record's own values."""
    settlement = settle(profile("kim-99", Name="Kim Lee"))
    settlement.believed([refusal(1, words="Kim Lee is not valid. Skipped record number : 1")])
    assert settlement.take_refusals()[0][0].error == "… is not valid."


@st.composite
def weather(draw: st.DrawFn) -> tuple[list[bytes], list[int]]:
    """Some lines over few users, and a script of replies."""
    users = st.integers(0, 3)
    kinds = st.sampled_from([profile, event])
    line = st.builds(lambda kind, user: kind(user), kinds, users)
    lines = draw(st.lists(line, min_size=1, max_size=9))
    return lines, draw(st.lists(st.integers(0, 6), max_size=40))


@given(weather())
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_doubled_or_out_of_order(  # noqa: C901, PLR0912, PLR0915  # one script
    given_: tuple[list[bytes], list[int]],
) -> None:
    """Whatever is answered: one state per record, unsafe ones applied at most once, and the last
    application of a user's records is in line order.
    """
    lines, script = given_
    settlement = settle(*lines)
    users = [orjson.loads(line)["identity"] for line in lines]
    applied: list[int] = []
    accepted = 0
    for step in [*script, *[0] * 60]:
        records = sent(settlement)
        if not records:
            break
        if step in {0, 1}:
            entries = [refusal(1, code=555)] if step == 1 else []
            applied.extend(records[len(entries) :])
            accepted += 1
            settlement.believed(entries)
        elif step == 2:
            applied.extend(records)
            settlement.ambiguous("reset", accepted=accepted)
        elif step == 3:
            settlement.refused(400, "bad", accepted=accepted, canary=False)
        elif step == 4:
            settlement.cut(1)
        elif step == 5:
            settlement.again()
        else:
            settlement.too_large(413, "")
    counts = settlement.counts
    assert settlement.piece is None
    assert counts.accounted == len(lines)
    found = states(settlement)
    refused = {index for indexes in found.values() for index in indexes}
    assert sum(len(indexes) for indexes in found.values()) == len(refused)
    times = Counter(applied)
    for record, line in enumerate(lines):
        if b'"event"' in line:
            assert times[record] <= 1
        if record not in refused:
            assert times[record] >= 1
    last = {record: position for position, record in enumerate(applied)}
    processed = [r for r in range(len(lines)) if r not in refused]
    for earlier, later in pairwise(processed):
        if users[earlier] == users[later]:
            assert last[earlier] < last[later]
