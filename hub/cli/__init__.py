"""The command line `hub`."""
