"""The command: options to settings, a run to what a person sees of it, its end to an exit code.

:mod:`~ctbatch.cli.main` finds the command, and each has a file with its name. They share options
(:mod:`~ctbatch.cli.options`, :mod:`~ctbatch.cli.groups`), where a run goes
(:mod:`~ctbatch.cli.targets`), how it is shown (:mod:`~ctbatch.cli.execution`,
:mod:`~ctbatch.cli.progress`, :mod:`~ctbatch.cli.summary`) and the words
(:mod:`~ctbatch.cli.wording`). Nothing is decided here about records, batches or replies.
"""
