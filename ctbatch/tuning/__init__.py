"""Finding out what to set: ``bench`` measures a grid of settings, ``tune`` searches for the best.

Both try one setting at a time with a real, bounded run (:mod:`~ctbatch.tuning.trials`) against the
bundled emulator or, without storing anything, the account. What to try next
(:mod:`~ctbatch.tuning.tuner`), what the figures say (:mod:`~ctbatch.tuning.advice`,
:mod:`~ctbatch.tuning.steady`) and how they look (:mod:`~ctbatch.tuning.picture`) is decided without
I/O. A trial's run directory goes when it is over: nothing of the input stays.
"""
