"""General helpers: text, units, signals, hashing, plug-ins."""
