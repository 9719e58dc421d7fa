"""Process machinery without domain words: configuration, logging, clocks, supervision."""
