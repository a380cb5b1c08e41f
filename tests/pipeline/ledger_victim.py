"""A process that writes a ledger until it is killed; says each step once it is durable.

Run as ``python -m tests.pipeline.ledger_victim DIRECTORY [--fsize BYTES]``; ``--fsize`` limits the
size of any file, so that writing fails as on a full disk.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from ctbatch.errors import LedgerFailed
from ctbatch.models import Counts, State
from tests.pipeline.ledgers import admit, opened, original, settle, span

SETTLED = Counts(processed=2, unprocessed=1, invalid=1, unknown=1)


def say(*words: object) -> None:
    """One step is durable."""
    print(*words, flush=True)  # noqa: T201  # the other process waits for it


async def main(run_dir: Path) -> None:
    """Spans in pairs, so that their writes interleave; sorted and published every ten."""
    async with opened(run_dir, create=not (run_dir / "ledger.sqlite").exists()) as ledger:
        number = 0
        try:
            while True:
                pair = [span(5 * (number + i) + 1) for i in (1, 0)]
                async with asyncio.TaskGroup() as group:
                    for each in pair:
                        group.create_task(admit(ledger, each))
                say("admitted", *(each.first_line for each in pair))
                for each in pair:
                    await settle(ledger, each, {3: State.INVALID}, pending=[0, 1, 2], maybe=[0, 1])
                    say("partly", each.first_line)
                for each in pair:
                    refused = {0: State.UNPROCESSED, 2: State.UNKNOWN}
                    await settle(ledger, each, refused, counts=SETTLED)
                    say("settled", each.first_line)
                number += 2
                if number % 10 == 0:
                    await ledger.publish_files(original)
                    say("published", number)
        except* LedgerFailed:
            say("failed")


if __name__ == "__main__":
    if "--fsize" in sys.argv:
        bytes_ = int(sys.argv[sys.argv.index("--fsize") + 1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    asyncio.run(main(Path(sys.argv[1])))
