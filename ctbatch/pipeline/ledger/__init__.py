"""Ledger: the run directory, and what became of every line, durable before anything depends on it.

* :mod:`~ctbatch.pipeline.ledger.rundir`: the directory, its lock, and finding runs.
* :mod:`~ctbatch.pipeline.ledger.durable`: bringing bytes to the disk.
* :mod:`~ctbatch.pipeline.ledger.schema`: the database's tables and columns.
* :mod:`~ctbatch.pipeline.ledger.rowfile`, :mod:`~ctbatch.pipeline.ledger.rejects`: the files of
  refused and unknown lines.
* :mod:`~ctbatch.pipeline.ledger.accounts`: reading what is recorded.
* :mod:`~ctbatch.pipeline.ledger.writer`: the protocol of a span, and the thread that writes.
"""

__all__: list[str] = []
