"""The pipeline: from lines to a report that accounts for each of them.

::

    source ──▶ batcher ──▶ sealer ──▶ sender ──▶ opener ──▶ ledger ──▶ report
                          (checker)

Read :mod:`~ctbatch.pipeline.flow` first: the whole of it on one page. Then:

* one batch on its way: :mod:`~ctbatch.pipeline.delivery`, which asks
  :mod:`~ctbatch.pipeline.settlement` what follows for the batch (and :mod:`~ctbatch.pipeline.ties`
  what goes together), and :mod:`~ctbatch.pipeline.breaker` what it says of the service. What all
  deliveries share is in :mod:`~ctbatch.pipeline.stages`;
* who goes when: :mod:`~ctbatch.pipeline.ordering` (on the loop: :mod:`~ctbatch.pipeline.turns`),
  :mod:`~ctbatch.pipeline.places`, and the slots of :mod:`ctbatch.api.limiter`;
* the keys, as they are now: :mod:`~ctbatch.pipeline.keyring`;
* a whole run: :mod:`~ctbatch.pipeline.runs`, made of :mod:`~ctbatch.pipeline.equipment`, gone on
  with by :mod:`~ctbatch.pipeline.continuing`, ended by :mod:`~ctbatch.pipeline.stopping` and
  :mod:`~ctbatch.pipeline.closing`; :mod:`~ctbatch.pipeline.threads` see through what they hold.

Stages know the vocabulary, never each other; the contracts in pyproject.toml say what may see what.
"""

__all__: list[str] = []
