"""The REST interface: resource engine, media types, authentication, errors, OpenAPI."""
