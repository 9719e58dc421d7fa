"""Services of a control node."""
