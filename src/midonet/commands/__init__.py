"""Entry points: wiring of the long-running commands. May import everything; imported by none."""
