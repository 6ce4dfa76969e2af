"""Measures the hub against its peers: `make bench`, or `python -m bench --help`."""
