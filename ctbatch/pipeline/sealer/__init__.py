"""Sealer: checking, framing and sealing.

* :mod:`~ctbatch.pipeline.sealer.lanes`: what a job is, and who does it in this process.
* :mod:`~ctbatch.pipeline.sealer.worker`: who does it in another one.
* :mod:`~ctbatch.pipeline.sealer.pool`: as many lanes as are of use; the way in.
"""

__all__: list[str] = []
