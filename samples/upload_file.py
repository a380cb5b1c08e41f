"""Upload a file and account for every line: ``python upload_file.py [FILE]``.

With CLEVERTAP_ACCOUNT_ID and the other variables of the README set, to that account; without, to
the bundled emulator, so that you can try it as it stands.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import ctbatch
from ctbatch.emulator.server import EmulatorProcess

USERS = Path(__file__).with_name("users.ndjson")


async def upload(
    path: Path, account: ctbatch.Account, endpoint: ctbatch.Endpoint, keys: ctbatch.KeyFiles
) -> int:
    """Upload, say what became of the lines, and return the exit code the command would have."""
    settings = ctbatch.Settings(inputs=[path], account=account, endpoint=endpoint, keys=keys)
    report = await ctbatch.run(settings)
    lines = report.lines
    print(f"{lines.processed} of {lines.total} lines processed; all about it: {report.run_dir}")
    for reason in report.reasons[:3]:
        print(f"  {reason.count} {reason.state}: {reason.error}")
    if report.resume:
        print(f"It ended early ({report.problem}); go on with: {report.resume}")
    return report.exit_code


async def main(path: Path) -> int:
    """Choose where to."""
    env = os.environ
    if "CLEVERTAP_ACCOUNT_ID" in env:
        return await upload(
            path,
            ctbatch.Account(
                id=env["CLEVERTAP_ACCOUNT_ID"], passcode=ctbatch.Secret(env["CLEVERTAP_PASSCODE"])
            ),
            ctbatch.Endpoint(base_url=env["CLEVERTAP_BASE_URL"])
            if "CLEVERTAP_BASE_URL" in env
            else ctbatch.Endpoint.of_region(env.get("CLEVERTAP_REGION")),
            ctbatch.KeyFiles(
                server=Path(env["CTBATCH_SERVER_KEY"]), client=Path(env["CTBATCH_CLIENT_KEY"])
            ),
        )
    async with EmulatorProcess() as emulator:
        return await upload(
            path,
            ctbatch.Account(id=emulator.account_id, passcode=emulator.passcode),
            ctbatch.Endpoint(base_url=emulator.base_url),
            ctbatch.KeyFiles(server=emulator.server_key, client=emulator.client_key),
        )


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else USERS)))
