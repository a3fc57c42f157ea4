"""The sanity checks of a robust accuracy, one file for each kind."""
