"""What framing and sealing cost, and handing a batch to a worker process and back.

    python -m benchmarks.bench_seal

Sealing with pyhpke, as used, and with `cryptography`'s own HPKE where the installed version has it,
for comparison. Handing over is what it costs this process to have a worker do a whole job: in
shared memory, as it is done on Linux, and through the pipes.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.load import batches
from benchmarks.rounds import PER_PROFILE, interleaved, show
from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.models import Batch
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.sealer.sealing import SealerSpec, Sealing, frame_batch
from ctbatch.pipeline.sealer.worker import Worker

__all__ = ["figures", "main"]

COUNT = 20


def _each(function: Callable[[Any], object], load: list[Any]) -> None:
    for item in load:
        function(item)


def _through(runner: asyncio.Runner, worker: Worker, load: list[Batch]) -> None:
    async def each() -> None:
        for batch in load:
            await worker.prepare(batch)

    runner.run(each())


def _own_hpke() -> Callable[[bytes], bytes] | None:
    """Sealing by `cryptography`, without a Tink prefix; since its version 47."""
    try:
        hpke = importlib.import_module("cryptography.hazmat.primitives.hpke")
    except ImportError:
        return None
    x25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.x25519")
    public = x25519.X25519PublicKey.from_public_bytes(generate().public().primary.public)
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    seal: Callable[[bytes], bytes] = partial(suite.encrypt, public_key=public, info=b"TEST")
    return seal


def figures() -> dict[str, float]:
    """Each part by itself, and the whole of a lane."""
    load, key = batches(COUNT), sealing_key()
    checked = check(load[0], Rules())
    bodies = [frame_batch(batch, checked) for batch in load]
    spec = SealerSpec(to_binary(generate().public()), b"TEST-BEN-CH01", Rules())
    parts: dict[str, Callable[[], object]] = {
        "floor": lambda: floor(load, key),
        "frame": partial(_each, lambda batch: frame_batch(batch, checked), load),
        "seal": partial(_each, key.seal, bodies),
        "check, frame, seal and digest": partial(_each, Sealing(spec).prepare, load),
    }
    if (own := _own_hpke()) is not None:
        parts["seal, cryptography's own HPKE"] = partial(_each, own, bodies)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        workers = {
            how: runner.run(Worker.start(spec, shared=how != "pipes"))
            for how in ("shared memory", "pipes")
        }
        for how, worker in workers.items():
            parts[f"hand over and take back, {how}"] = partial(_through, runner, worker, load)
        found = interleaved(parts, COUNT * 1000)
        for worker in workers.values():
            runner.run(worker.close())
    return {f"{name}, {PER_PROFILE}": value for name, value in found.items()} | {
        f"{name}, × floor": value / found["floor"] for name, value in found.items()
    }


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
