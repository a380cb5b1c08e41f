"""Checker: is a line a record, who is it about, and may it be applied twice? Pure.

* :mod:`~ctbatch.pipeline.checker.parsing`: a line to a JSON object, or the reason why not.
* :mod:`~ctbatch.pipeline.checker.fields`: the documented rules for its fields.
* :mod:`~ctbatch.pipeline.checker.shapes`: what lines have in common that differ in values only.
* :mod:`~ctbatch.pipeline.checker.fastlane`: lines that look like lines accepted before.
* :mod:`~ctbatch.pipeline.checker.check`: a batch; the way in.
"""

__all__: list[str] = []
