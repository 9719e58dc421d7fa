"""Flow programs, masks, tags, classes and invalidation. Pure."""
