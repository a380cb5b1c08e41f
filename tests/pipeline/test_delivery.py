"""One batch on its way, by the stages of a run: what it waits for, keeps, and gives back when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn
from unittest.mock import patch

import pytest

from ctbatch.api.breakage import redirected
from ctbatch.crypto.keyset import Keyset, generate, to_json
from ctbatch.errors import ReplyLost, ServiceRefused
from ctbatch.models import Batch, Counts, Span
from ctbatch.notices import Live, Silent
from ctbatch.pipeline import runs
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.delivery import CALM_TRIES, Delivery
from ctbatch.pipeline.equipment import Backoff, Equipment
from ctbatch.pipeline.keyring import Keyring
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.report.document import Measurements, RunState
from ctbatch.pipeline.stages import Stages
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import KeyFiles, OnAmbiguous, Settings
from tests.pipeline.ledgers import opened, read
from tests.pipeline.scripted import Conduct, Line, ScriptedService, Weather
from tests.pipeline.voyages import at_once, go_on, mortal, settings_for

LATE_S = 0.1


@asynccontextmanager
async def _stages(
    run_dir: Path,
    service: ScriptedService,
    *,
    policy: OnAmbiguous = OnAmbiguous.AUTO,
    keys: Keyring | None = None,
    backoff: Backoff = at_once,
) -> AsyncIterator[Stages]:
    """What the deliveries of a run share, without the run; what hangs is ended."""
    inputs = [run_dir / "never read"]
    settings = settings_for(inputs, run_dir, batch_size=9, concurrency=3, on_ambiguous=policy)
    with mortal(service):
        equipment = Equipment(
            settings,
            keys,
            live=Live(),
            measured=Measurements(),
            watcher=Silent(),
            stop=Stop(),
            backoff=backoff,
        )
        async with opened(run_dir, create=True) as ledger, equipment, asyncio.timeout(10):
            yield equipment.stages(ledger)


def _batch(*lines: Line, first: int = 1) -> Batch:
    """A batch of lines that begins with line ``first``."""
    data = b"".join(line.text(first + n) + b"\n" for n, line in enumerate(lines))
    return Batch(Span(0, first, len(lines), 1000 * first, len(data)), data)


def _recorded(run_dir: Path) -> Sequence[Recorded]:
    return read(run_dir, lambda accounts: accounts.recorded(0))


# -- what it waits for ---------------------------------------------------------------------------


async def test_after_a_time_out_the_user_stays_reserved_for_a_while(tmp_path: Path) -> None:
    """The request that nobody waits for any more may still be applied: a later batch of the user
    goes only when that is unlikely, though the repeat was believed at once.
    """
    service, loop = ScriptedService(script=[Weather.TIMEOUT]), asyncio.get_running_loop()
    sent_at = []
    service.on_request = lambda number: sent_at.append(loop.time())
    async with _stages(tmp_path, service) as stages, asyncio.TaskGroup() as group:
        late = replace(stages, late_s=LATE_S)
        for seq in range(2):
            batch = _batch(Line("set", "a"), first=1 + seq)
            group.create_task(Delivery(late, seq, batch).run())
    assert len(sent_at) == 3
    assert sent_at[2] - sent_at[1] >= LATE_S


@pytest.mark.parametrize(
    ("kind", "policy", "fresh"),
    [
        ("set", OnAmbiguous.AUTO, False),
        ("count", OnAmbiguous.AUTO, True),
        ("event", OnAmbiguous.RESEND, True),
        ("set", OnAmbiguous.HOLD, True),
    ],
)
async def test_what_is_not_to_be_repeated_wants_a_fresh_connection(
    tmp_path: Path, kind: str, policy: OnAmbiguous, fresh: bool
) -> None:
    """On one that was idle it could be lost, and nobody would know whether it arrived."""
    service = ScriptedService()
    async with _stages(tmp_path, service, policy=policy) as stages:
        await Delivery(stages, 0, _batch(Line(kind, "a"))).run()
    assert service.fresh == [fresh]


async def test_nothing_goes_out_that_was_admitted_when_the_run_was_asked_to_end(
    tmp_path: Path,
) -> None:
    """The wish came while the ledger wrote: the batch is left for resume, and its admission is
    withdrawn.
    """
    service = ScriptedService()
    async with _stages(tmp_path, service) as stages:
        admit = stages.ledger.admit

        def admit_and_stop(*args: Any, **fields: Any) -> asyncio.Future[None]:
            stages.stop.request(2)
            return admit(*args, **fields)

        with patch.object(stages.ledger, "admit", admit_and_stop):
            await Delivery(stages, 0, _batch(Line("set", "a"))).run()
    assert service.requests == 0
    assert not _recorded(tmp_path)


@pytest.mark.parametrize(
    ("others", "expected"), [(False, [1, 2, 3, 4, 5]), (True, [1, 2, *[CALM_TRIES] * 3])]
)
async def test_pauses_grow_further_only_where_nobody_is_accepted(
    tmp_path: Path, others: bool, expected: list[int]
) -> None:
    """Where others are accepted meanwhile there is room, and a 429 is a matter of luck."""
    tries: list[int] = []

    def backoff(count: int, retry_after: str | None) -> float:
        tries.append(count)
        return 0.0

    service = ScriptedService(script=[Weather.THROTTLED] * 5)
    async with _stages(tmp_path, service, backoff=backoff) as stages:
        if others:
            service.on_request = lambda number: stages.breaker.believed()
        await Delivery(stages, 0, _batch(Line("set", "a"))).run()
    assert tries == expected


# -- its permit ----------------------------------------------------------------------------------


class Permits(asyncio.Semaphore):
    """Permits that say when somebody asks for one."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.asked = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.asked.set()
        return await super().acquire()


async def test_who_is_not_let_through_keeps_no_permit(tmp_path: Path) -> None:
    """An outage came while it waited for one: those who may go need it."""
    async with _stages(tmp_path, ScriptedService(), backoff=lambda *_: 600.0) as stages:
        permits = Permits(0)
        delivery = Delivery(replace(stages, admissions=permits), 0, _batch(Line("event", "a")))
        task = asyncio.create_task(delivery.run())
        await permits.asked.wait()
        for _ in range(3):
            stages.breaker.failed("500")
        permits.release()  # it is given to whoever has waited longest
        async with asyncio.timeout(1):
            await permits.acquire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_permit_is_given_back_before_the_outcome_is_durable(tmp_path: Path) -> None:
    """What is admitted next is written later, and so can never be durable earlier."""
    free: list[bool] = []
    async with _stages(tmp_path, ScriptedService()) as stages:
        permits, settle = asyncio.Semaphore(1), stages.ledger.settle

        def settle_and_look(*args: Any, **fields: Any) -> asyncio.Future[None]:
            written = settle(*args, **fields)
            written.add_done_callback(lambda _: free.append(not permits.locked()))
            return written

        with patch.object(stages.ledger, "settle", settle_and_look):
            alone = replace(stages, admissions=permits)
            await Delivery(alone, 0, _batch(Line("set", "a"))).run()
    assert free == [True]


# -- its key -------------------------------------------------------------------------------------


class Locked(ScriptedService):
    """A service that cannot open anything, and loses what it is sent."""

    before_loss: Callable[[], Awaitable[object]]

    async def request(self, *_: object, **__: object) -> NoReturn:
        self.requests += 1
        await self.before_loss()
        raise ReplyLost("reset", "reset")


def _write(path: Path, keyset: Keyset) -> Path:
    path.write_bytes(to_json(keyset))
    path.chmod(0o600)
    return path


async def test_what_is_sealed_anew_is_admitted_anew(tmp_path: Path) -> None:
    """It may have arrived already under the old key; the ledger has the key it went out with."""
    files = KeyFiles(
        server=_write(tmp_path / "server.json", generate().public()),
        client=_write(tmp_path / "client.json", generate()),
    )
    keyring = await asyncio.to_thread(Keyring.load, files, b"TEST-1")
    new, service = generate().public(), Locked()
    async with _stages(tmp_path, service, keys=keyring) as stages:

        async def turn_the_key() -> None:
            if service.requests == 1:
                await asyncio.to_thread(_write, files.server, new)
                await stages.keys.look(insist=True)
            else:
                stages.stop.request(2)

        service.before_loss = turn_the_key
        await Delivery(stages, 0, _batch(Line("set", "a"))).run()
    assert service.requests == 2
    assert read(tmp_path, lambda accounts: accounts.key_ids()) == [new.primary_id]


# -- what may have arrived -----------------------------------------------------------------------


async def test_what_goes_out_again_is_admitted_with_all_that_had_not(tmp_path: Path) -> None:
    """Of a batch that an earlier process began one line may have arrived; without a key's name,
    as in plaintext, nothing else tells that it goes out with others now.
    """
    batch, both = _batch(Line("set", "a"), Line("set", "b")), frozenset({0, 1})
    digest, admitted = digest_of(batch), list[frozenset[int]]()
    async with _stages(tmp_path, ScriptedService()) as stages:
        admit = stages.ledger.admit

        def noted(*args: Any, **fields: Any) -> asyncio.Future[None]:
            admitted.append(fields["maybe"])
            return admit(*args, **fields)

        one = frozenset({0})
        await admit(batch.span, digest=digest, key_id=None, pending=both, maybe=one)
        began = Recorded(batch.span, False, digest, Counts(), both, one)
        with patch.object(stages.ledger, "admit", noted):
            await Delivery(stages, 0, batch, began).run()
    assert admitted == [both]


class Elsewhere(ScriptedService):
    """A service that loses what it is sent so many times, and then has moved."""

    losses: int = 0

    async def request(self, *_: object, **__: object) -> NoReturn:
        self.requests += 1
        if self.requests <= self.losses:
            raise ReplyLost("reset", "reset")
        raise redirected("h", 302, None)


@pytest.mark.parametrize("losses", [0, 1])
async def test_a_redirect_says_nothing_of_the_attempts_before_it(
    tmp_path: Path, losses: int
) -> None:
    """What a redirect answers was not acted on; what was lost before may have been."""
    service = Elsewhere()
    service.losses = losses
    async with _stages(tmp_path, service) as stages:
        await Delivery(stages, 0, _batch(Line("set", "a"), Line("set", "b"))).run()
        assert isinstance(stages.stop.reason, ServiceRefused)
    assert service.requests == losses + 1
    assert [found.maybe for found in _recorded(tmp_path)] == [None] * losses


# -- in a run ------------------------------------------------------------------------------------


def _settings(tmp_path: Path, *lines: Line, batch_size: int) -> Settings:
    path = tmp_path / "users.ndjson"
    path.write_bytes(b"".join(line.text(n) + b"\n" for n, line in enumerate(lines)))
    return settings_for([path], tmp_path / "run", batch_size=batch_size, concurrency=3)


@pytest.mark.parametrize(
    ("refused", "state", "blamed"), [(1, RunState.COMPLETE, 1), (2, RunState.REFUSED, 0)]
)
async def test_a_record_is_presumed_guilty_only_if_it_is_all_that_is_left(
    tmp_path: Path, refused: int, state: RunState, blamed: int
) -> None:
    """Two that are refused again and again may both be innocent: none is blamed."""
    bad = [Line("set", "", Conduct.POISON)] * refused
    with mortal(ScriptedService()):
        report = await go_on(_settings(tmp_path, *[Line("set", "")] * 2, *bad, batch_size=2))
    assert (report.state, report.lines.unprocessed) == (state, blamed)
    assert report.lines.unsent == refused - blamed


async def test_whoever_pauses_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Asked to end, a run waits for what is on the wire, not for what waits itself."""
    stop, service = Stop(), ScriptedService(script=[Weather.THROTTLED])

    def backoff(tries: int, retry_after: str | None) -> float:
        stop.request(2)
        return 600.0

    with mortal(service):
        async with asyncio.timeout(10):
            settings = _settings(tmp_path, *[Line("set", "")] * 9, batch_size=2)
            report = await runs.run(settings, stop=stop, backoff=backoff)
    assert (report.state, report.lines.unsent) == (RunState.INTERRUPTED, 9)
    assert report.lines.maybe_sent == 0
