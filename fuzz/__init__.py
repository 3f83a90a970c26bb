"""Fuzzing: hostile bytes into everything that reads bytes of others.  `fuzz/README.md` says what and how."""
