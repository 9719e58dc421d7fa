"""Virtual topology types: what the user asked for. Pure; no I/O, no clock."""
