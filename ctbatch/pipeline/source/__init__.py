"""Source: from the inputs that were named to batches of lines.

* :mod:`~ctbatch.pipeline.source.inputs`: which inputs there are, and refusing what is none.
* :mod:`~ctbatch.pipeline.source.sniffing`: telling from the first bytes what an input is.
* :mod:`~ctbatch.pipeline.source.streams`: opening, unpacking, and waiting for a pipe.
* :mod:`~ctbatch.pipeline.source.reading`: one source after the other; the thread's part.
* :mod:`~ctbatch.pipeline.source.reader`: the thread and the loop; the way in.
"""

__all__: list[str] = []
