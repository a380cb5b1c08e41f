"""What framing and sealing cost, and handing a batch to a worker process and back.

    python -m benchmarks.bench_seal

Sealing with pyhpke, as used, and for comparison with `cryptography`'s own HPKE where the installed
version has it. Handing over is wall time of a whole job in a worker less that of the same job in
this process: copying into shared memory and out, the pipes, two changes of process.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.load import batches
from benchmarks.rounds import PER_PROFILE, interleaved, show
from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.models import Batch
from ctbatch.pipeline.checker import Rules, check
from ctbatch.pipeline.lanes import Inline, Lane, SealerSpec, Worker, frame_batch

__all__ = ["figures", "main"]

COUNT = 20


def _each(function: Callable[[Any], object], load: list[Any]) -> None:
    for item in load:
        function(item)


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


def _handing_over(load: list[Batch], spec: SealerSpec) -> float:
    """µs of wall time per profile, the median over pairs of the same job."""
    inline, worker = Inline(spec), Worker(spec)

    def took_s(lane: Lane, batch: Batch) -> float:
        began_s = time.perf_counter()
        lane.prepare(batch)
        return time.perf_counter() - began_s

    try:
        for batch in load[:3]:  # both learn the shape of the lines first
            inline.prepare(batch)
            worker.prepare(batch)
        pairs = [took_s(worker, batch) - took_s(inline, batch) for batch in load * 3]
    finally:
        worker.close()
    return statistics.median(pairs) / load[0].span.lines * 1e6


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
        "check, frame, seal and digest": partial(_each, Inline(spec).prepare, load),
    }
    if (own := _own_hpke()) is not None:
        parts["seal, cryptography's own HPKE"] = partial(_each, own, bodies)
    found = interleaved(parts, COUNT * 1000)
    return (
        {f"{name}, {PER_PROFILE}": value for name, value in found.items()}
        | {f"handing over to a worker, wall {PER_PROFILE}": _handing_over(load, spec)}
        | {f"{name}, × floor": value / found["floor"] for name, value in found.items()}
    )


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
