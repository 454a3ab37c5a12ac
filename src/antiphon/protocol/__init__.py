"""The rules of a response's log: what an event means, how it is numbered, framed and shown. No I/O, no clock."""
