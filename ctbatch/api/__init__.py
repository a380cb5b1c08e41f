"""The service as seen from here: what goes over the wire, what comes back, and what it means.

* :mod:`~ctbatch.api.wire`: paths, headers, and the table of what every reply means; with
  :mod:`~ctbatch.api.records`, :mod:`~ctbatch.api.words` and :mod:`~ctbatch.api.explain`, pure.
* :mod:`~ctbatch.api.limiter` and :mod:`~ctbatch.api.retry`: how many requests at a time, and how
  long to pause.
* :mod:`~ctbatch.api.transport`, on :mod:`~ctbatch.api.pool` and :mod:`~ctbatch.api.breakage`: the
  only door out.
* :mod:`~ctbatch.api.client`: uploads and queries for the library, with
  :mod:`~ctbatch.api.queries`, :mod:`~ctbatch.api.cursors` and :mod:`~ctbatch.api.lookups`.
* :mod:`~ctbatch.api.probe` and :mod:`~ctbatch.api.diagnosis`: what ``ctbatch check`` asks and
  concludes.

The upload of whole files is not here: :mod:`ctbatch.pipeline`.
"""
