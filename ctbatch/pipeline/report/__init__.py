"""Report: what was measured and counted, as a document.

* :mod:`~ctbatch.pipeline.report.latencies`, :mod:`~ctbatch.pipeline.report.measurements`: what a
  process measures, and sums over the processes of a run.
* :mod:`~ctbatch.pipeline.report.bottleneck`: what a run was bound by; pure.
* :mod:`~ctbatch.pipeline.report.document`: the report and its JSON; pure.

It is drawn up from the ledger in :mod:`~ctbatch.pipeline.closing`.
"""

__all__: list[str] = []
