"""Pure translation between bytes and messages; no I/O, no clock."""
