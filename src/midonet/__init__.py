"""MidoNet: virtual networks on any IP network, in software."""

__version__ = "0.1.0"
