"""Sealer: checking, framing and sealing.

* :mod:`~ctbatch.pipeline.sealer.sealing`: the work itself.
* :mod:`~ctbatch.pipeline.sealer.lanes`: who does it in this process.
* :mod:`~ctbatch.pipeline.sealer.worker`: who does it in another one, and
  :mod:`~ctbatch.pipeline.sealer.serving`, how that one does it.
* :mod:`~ctbatch.pipeline.sealer.pool`: as many lanes as are of use; the way in.
"""

__all__: list[str] = []
