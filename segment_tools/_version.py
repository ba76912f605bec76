"""The version, which the package, the wire and the command line share."""

__version__ = "0.1.0"
