"""What ``bench`` and ``tune`` share: on what ground trials take place, how they begin, and whether
this machine was up to them.

Invariants:

1. Without ``--live`` no setting of account, keys or endpoint is read, from wherever it comes.
2. With ``--live`` every request asks the service to store nothing (``dryRun=1``), and ``--limit``
   says how many lines may be sent in all, not counting what is sent again after a failure; there is
   no option to change the former.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ctbatch.cli import loop, streams
from ctbatch.cli.execution import header, reached
from ctbatch.cli.options import Connection, Environment, Kind, Tuning
from ctbatch.cli.targets import Target, run_settings
from ctbatch.cli.wording import duration
from ctbatch.errors import InputError, SettingsError
from ctbatch.settings import Settings
from ctbatch.tuning.advice import slowest
from ctbatch.tuning.figures import Figures

if TYPE_CHECKING:
    from ctbatch.emulator.state import Config
    from ctbatch.tuning.trials import Trials

__all__ = ["INPUTS", "Ground", "attempt", "progress"]

_T = TypeVar("_T")

_PANEL = "Against what"

INPUTS = typer.Argument(
    metavar="INPUT...", help="NDJSON files or globs; .gz and .zst too.", show_default=False
)

LATENCY_S = 0.2
"""What the emulator takes for a call unless told: what uploads were seen to take, in round numbers.
"""

TOO_SLOW = 1.5
"""Answers that take so many times what the emulator was asked to take wait for a processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The bundled emulator, with its weather, or the account."""

    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Against the account instead of the bundled emulator; it stores nothing (dryRun).",
            rich_help_panel=_PANEL,
        ),
    ] = False
    limit: Annotated[
        int | None,
        typer.Option(
            help="Lines sent in all, repetitions not counted; needed with --live.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    latency: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds a call takes the emulator. Default: {LATENCY_S}.", rich_help_panel=_PANEL
        ),
    ] = None
    jitter: Annotated[
        float | None, typer.Option(help="Up to so many seconds more.", rich_help_panel=_PANEL)
    ] = None
    load_latency: Annotated[
        float | None,
        typer.Option(help="Seconds more for each other call under way.", rich_help_panel=_PANEL),
    ] = None
    max_concurrent: Annotated[
        int | None,
        typer.Option(help="Calls at a time; more are answered 429.", rich_help_panel=_PANEL),
    ] = None

    @property
    def name(self) -> str:
        """Where trials take place, for JSON."""
        return "live" if self.live else "emulator"

    @property
    def expected_ms(self) -> float | None:
        """What an answer takes at most, as far as the emulator is concerned, in milliseconds."""
        if self.live or self.load_latency:
            return None
        latency_s = LATENCY_S if self.latency is None else self.latency
        return 1000 * (latency_s + (self.jitter or 0.0))

    def too_busy(self, figures: Sequence[Figures]) -> str | None:
        """A sentence, where half of the answers of a trial took much longer than the emulator was
        asked to take.
        """
        if not self.expected_ms or (slow_ms := slowest(figures)) <= TOO_SLOW * self.expected_ms:
            return None
        asked, took = duration(self.expected_ms / 1000), duration(slow_ms / 1000)
        return (
            f"This machine was too busy: the emulator takes {asked} for a call, and half of the"
            f" answers came after {took}."
        )

    def config(self) -> Config | None:
        """What the emulator is asked to be; ``None`` with ``--live``. Raises
        :class:`SettingsError`.
        """
        weather = {
            "latency_s": self.latency,
            "jitter_s": self.jitter,
            "load_latency_s": self.load_latency,
            "max_concurrent": self.max_concurrent,
        }
        given = {name: value for name, value in weather.items() if value is not None}
        if self.live:
            for name in given:
                option = f"--{name.removesuffix('_s').replace('_', '-')}"
                raise SettingsError(option, "is the emulator's, not the account's", "leave it out")
            return None
        from ctbatch.emulator.state import Config  # noqa: PLC0415  # only if asked for

        # Only counts are kept: what it accepts is nobody's business, and memory.
        return Config(**{"latency_s": LATENCY_S, **given}, forget=True)  # type: ignore[arg-type]

    def settings(self, inputs: list[str], connection: Connection, env: Environment) -> Settings:
        """The settings of every trial but for what is tried. Raises :class:`SettingsError`."""
        if self.live and self.limit is None:
            remedy = "say how many lines may be sent in all"
            raise SettingsError("--limit", "is missing: --live sends to the account", remedy)
        kind = Kind(emulator=not self.live, server_dry_run=self.live, limit=self.limit)
        if not self.live:
            connection.refuse_all("has no meaning without --live")
        try:
            return run_settings(inputs, connection, Tuning(), kind, env)
        except SettingsError as error:
            remedy = error.remedy.replace(": --emulator", ": leave out --live")
            raise SettingsError(error.option, error.why, remedy) from None


def attempt(
    settings: Settings,
    config: Config | None,
    work: Callable[[Trials], Awaitable[_T]],
    *,
    quiet: bool,
) -> _T:
    """Have the ground ready, and trials made on it, until Ctrl-C or until the terminal is closed.

    Raises:
        UsageError: an input cannot be read, or not more than once.
    """
    from ctbatch.pipeline.source.reader import expand  # noqa: PLC0415  # heavy: --help does not wait
    from ctbatch.tuning.trials import Trials  # noqa: PLC0415  # the same

    for spec in expand(settings.inputs):
        if spec.is_pipe:
            why = "is a pipe or a device: every trial reads the input from its start"
            raise InputError(spec.path, why, "put it in a file")
    kind = Kind(emulator=settings.emulator, server_dry_run=settings.server_dry_run)
    target = Target(kind.mode, settings.account, settings.endpoint, settings.keys)

    async def run() -> _T:
        trials = Trials(settings)
        with loop.signals_to(trials.request, hangup=True):
            async with reached(target, config) as complete:
                progress(header(complete), quiet=quiet)
                trials.base = replace(
                    settings,
                    account=complete.account,
                    endpoint=complete.endpoint,
                    keys=complete.keys,
                )
                return await work(trials)

    return loop.run(run())


def progress(text: str, *, quiet: bool) -> None:
    """Say on standard error how far it is."""
    if not quiet:
        streams.err(text)
