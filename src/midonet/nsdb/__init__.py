"""NSDB, the network state database: where the model and learnt state live."""
