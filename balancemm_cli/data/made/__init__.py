"""Data sets that this program writes itself, in the official formats, with a known answer."""

from balancemm_cli.data import datasets as datasets  # first: its table names the classes of this package
