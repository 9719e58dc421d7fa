"""This host: its record and session, its state directory, its settings."""
