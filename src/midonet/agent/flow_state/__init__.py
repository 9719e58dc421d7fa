"""What is remembered of connections: values, tables, pools. Pure (docs/design/connections.md)."""
