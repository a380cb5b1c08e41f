"""Sealer: checking, framing and sealing off the event loop.

* :mod:`~ctbatch.pipeline.sealer.lanes`: who does a job: this process, or a worker.
* :mod:`~ctbatch.pipeline.sealer.pool`: as many lanes as are of use; the way in.
"""

__all__: list[str] = []
