"""What each resource does beyond the generic engine. One module per area."""
