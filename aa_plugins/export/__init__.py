"""Converted networks for the runtimes that people deploy, by standard operators alone."""
