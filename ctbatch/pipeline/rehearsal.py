"""The delivery of a dry run: everything up to the wire."""

from __future__ import annotations

from ctbatch.errors import CtbatchError
from ctbatch.pipeline.delivery import Delivery

__all__ = ["Rehearsal"]


class Rehearsal(Delivery):
    """The delivery of a dry run: check and record what is invalid; send nothing."""

    async def run(self) -> None:
        """Check the batch; its valid lines stay unsent."""
        try:
            await self._seal()
            if self._settlement.piece is not None:
                await self._record()
                self._warn()
        except CtbatchError as error:
            self._s.stop.fail(error)
        finally:
            self._s.turns.release(self._seq)
