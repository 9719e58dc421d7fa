"""From store watches to immutable topology views and their deltas."""
