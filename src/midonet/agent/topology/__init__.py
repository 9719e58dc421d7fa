"""From store watches to immutable topology views and their deltas.

See docs/design/topology.md.
"""
