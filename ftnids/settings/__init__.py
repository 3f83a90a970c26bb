"""The configuration's values: in words, from other places than the file, against each other, and as a file."""
