"""What can be done on the command line: a module for each command, with what it takes and what it does."""
