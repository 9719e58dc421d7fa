"""The `Datapath` protocol and its implementations."""
