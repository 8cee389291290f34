"""Three variants of two small networks, trained for minutes and measured."""
