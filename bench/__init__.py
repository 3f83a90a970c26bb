"""Benches: one module each, `python -m bench NAME [options]`; its first docstring line says what it prints.

A bench module has `main(arguments: list[str]) -> int`, prints plain tables, and returns 0 only if the numbers that it
is held to are met.  `python -m bench` alone runs all of them with their defaults.
"""
