"""``ctbatch emulator``: the service on this machine, to try ctbatch and to see what it does when
things break.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ctbatch import shell
from ctbatch.api.wire import MAX_CONCURRENT_UPLOADS
from ctbatch.cli.values import path_of
from ctbatch.emulator.faults import FAULTS
from ctbatch.emulator.server import Emulator, run
from ctbatch.emulator.state import ACCOUNT_ID, Config
from ctbatch.settings import check_header

__all__ = ["emulator"]

_FAULT_HELP = (
    "NAME=RULE, or NAME for always; may be repeated. RULE: a share from 0 to 1, every-N, first-N,"
    " after-N or only-N. "
    f"NAME: {', '.join(FAULTS)}."
)


# Longer than 60 lines because each option is declared here, once: typer reads the signature.
def emulator(
    *,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 is a free one.")] = 0,
    account_id: Annotated[str, typer.Option(help="The account it serves.")] = ACCOUNT_ID,
    keys_dir: Annotated[
        Path | None,
        typer.Option(
            help="Keep keys and passcode here; else they go with it.",
            metavar="PATH",
            parser=path_of("--keys-dir"),
        ),
    ] = None,
    raw_keys: Annotated[
        bool, typer.Option("--raw-keys", help="Make keys without a prefix (RAW).")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="Keep what it accepted in this SQLite file.")
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Keep only counts, for benchmarks.")
    ] = False,
    latency: Annotated[float, typer.Option(help="Seconds each call takes.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Up to so many seconds more, at random.")] = 0.0,
    load_latency: Annotated[
        float, typer.Option(help="Seconds more for each other call in progress.")
    ] = 0.0,
    fault: Annotated[list[str] | None, typer.Option(help=_FAULT_HELP)] = None,
    seed: Annotated[int, typer.Option(help="The same seed brings the same faults.")] = 0,
    transient_times: Annotated[
        int, typer.Option(help="How often a record fails with code 555 before it passes.")
    ] = 1,
    retry_after: Annotated[
        str, typer.Option(help="Retry-After on every 429 and 503: seconds, or date+SECONDS.")
    ] = "",
    max_concurrent: Annotated[
        int, typer.Option(help="Uploads at a time; more are answered 429.")
    ] = MAX_CONCURRENT_UPLOADS,
    max_body_bytes: Annotated[int, typer.Option(help="A larger body is answered 413.")] = 1 << 30,
    idle_close: Annotated[
        float, typer.Option(help="Close a connection idle for so many seconds.")
    ] = 75.0,
    outage: Annotated[str, typer.Option(help="Every call fails: 500 or reset.")] = "",
    feature: Annotated[
        bool, typer.Option("--feature/--no-feature", help="Encryption is enabled.")
    ] = True,
    enforce: Annotated[bool, typer.Option("--enforce", help="Refuse plaintext.")] = False,
    seal_errors: Annotated[
        bool, typer.Option("--seal-errors", help="Seal error replies too.")
    ] = False,
    in_progress: Annotated[
        int, typer.Option(help='How often a new cursor answers "in progress".')
    ] = 0,
) -> None:
    """Run the service on this machine, with real encryption, until Ctrl-C.

    It knows nothing that you do not upload to it; `GET /_emulator/stats`, `/records` and
    `/requests` tell what it saw. `POST /_emulator/rotate` gives it another key, `/client-key` has
    it take yours anew.
    """
    check_header("--account-id", account_id or " ")
    config = Config(
        port=port,
        account_id=account_id,
        keys_dir=keys_dir,
        raw_keys=raw_keys,
        state_file=state,
        forget=forget,
        latency_s=latency,
        jitter_s=jitter,
        load_latency_s=load_latency,
        faults=tuple(fault or ()),
        seed=seed,
        transient_times=transient_times,
        retry_after=retry_after,
        max_concurrent=max_concurrent,
        max_body_bytes=max_body_bytes,
        idle_close_s=idle_close,
        outage=outage,
        feature=feature,
        enforce=enforce,
        seal_errors=seal_errors,
        in_progress=in_progress,
    )
    run(config, _render)


def _render(emulator: Emulator) -> None:
    """Say where it is and how to point ctbatch at it."""
    print(
        f"The emulator listens on {emulator.base_url} for account {emulator.account_id}.\n"
        "\nPoint ctbatch at it:\n"
    )
    for name, value in (
        ("CLEVERTAP_ACCOUNT_ID", emulator.account_id),
        ("CLEVERTAP_PASSCODE", emulator.passcode.reveal()),
        ("CLEVERTAP_BASE_URL", emulator.base_url),
        ("CTBATCH_SERVER_KEY", str(emulator.server_key)),
        ("CTBATCH_CLIENT_KEY", str(emulator.client_key)),
    ):
        print(f"export {name}={shell.quote(value)}")
    print(
        "\nSee what it saw:\n\n"
        'curl -su "$CLEVERTAP_ACCOUNT_ID:$CLEVERTAP_PASSCODE" "$CLEVERTAP_BASE_URL/_emulator/stats"'
        "\n\nCtrl-C ends it."
    )
    sys.stdout.flush()
