"""Wire formats: bytes to frozen headers and back. Pure; no I/O, no clock."""
