"""Connections told between hosts: what is sent, sent again, asked for and taken in."""
