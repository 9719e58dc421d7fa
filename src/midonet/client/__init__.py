"""A small synchronous client of the REST interface, typed by the model's representations."""

from midonet.client.api_error import ApiError
from midonet.client.client import MidoNetClient

__all__ = ["ApiError", "MidoNetClient"]
