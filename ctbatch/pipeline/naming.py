"""Which input a notice is about: a batch tells its line, and of several inputs each has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctbatch.notices import Live, Notice, Watcher

__all__ = ["Naming"]


class Naming:
    """A watcher that passes everything on, and names the input where there are several.

    ``sources`` are the paths of the inputs, in the order of the run.
    """

    def __init__(self, watcher: Watcher, sources: Sequence[str]) -> None:
        self._watcher = watcher
        self._sources = sources

    def watch(self, live: Live) -> None:
        """Pass it on."""
        self._watcher.watch(live)

    def tell(self, notice: Notice) -> None:
        """Pass it on, with the name of its input before the number of its line."""
        if notice.event == "line.warning" and len(self._sources) > 1:
            source = self._sources[int(notice.fields["source"])]
            notice = replace(notice, text=f"{source}, {notice.text}")
        self._watcher.tell(notice)
