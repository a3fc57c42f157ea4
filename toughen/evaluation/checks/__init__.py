"""The sanity checks behind a robust accuracy, one file per kind of doubt."""
