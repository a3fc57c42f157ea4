"""The command line: a module for each command, with its parser and its ``run``."""
