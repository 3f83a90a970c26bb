"""One module for each command of the command line; each offers a click command named `command`."""
