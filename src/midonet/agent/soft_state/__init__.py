"""What hosts learn and share: replicas of state tables, and the writes on their way."""
