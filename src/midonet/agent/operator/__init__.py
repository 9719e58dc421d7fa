"""What the agent tells and does for an operator at its host."""
