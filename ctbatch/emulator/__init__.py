"""The service, locally: what the vendor documents, and what goes wrong in between.

* :mod:`~ctbatch.emulator.state`: the options, what is kept, what is counted.
* :mod:`~ctbatch.emulator.faults`: which request meets which fault. Sans I/O.
* :mod:`~ctbatch.emulator.envelope`: who may ask, in the clear or sealed. Sans I/O.
* :mod:`~ctbatch.emulator.keys`: its private keyset, the customer's public one, rotation.
* :mod:`~ctbatch.emulator.verdicts`: which records are refused, and the words. Sans I/O.
* :mod:`~ctbatch.emulator.profiles`, :mod:`~ctbatch.emulator.queries`: look-ups over what was kept.
* :mod:`~ctbatch.emulator.reply`: what goes back, and how it is spoiled. Sans I/O.
* :mod:`~ctbatch.emulator.app`: one request from arrival to reply; ``admin`` answers ``/_emulator``.
* :mod:`~ctbatch.emulator.server`: the socket, in this process or in one of its own.

Invariants:

1. Requests are read here by code of our own: constants are shared with :mod:`ctbatch.api.wire`,
   parsing is not, so that a mistake made twice the same way cannot pass a test.
2. It binds loopback only, and keys it made up go with it.
3. What it was sent is shown only to who knows the passcode.

Why (November 2026): the vendor offers no sandbox, and no fault can be ordered from a live account.
Every promise ctbatch makes is about faults, so they have to come from somewhere.
"""
