"""Experiments: declared variants × seeds, run to records, and records to the tables of the docs."""
