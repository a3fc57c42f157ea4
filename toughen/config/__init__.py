"""Settings from the command line and YAML to objects."""
