"""The ports of this host: which are bound, where they are, and how they get there."""
