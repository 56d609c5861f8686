"""Data sets that this program writes itself, in the official formats, with a known answer."""
