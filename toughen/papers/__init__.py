"""Reproduces tables and figures of papers: trains, measures, stores the results, and compares them with the papers."""
