"""Command-line tools that talk to the product from outside."""
