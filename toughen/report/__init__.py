"""Writes results as one self-contained HTML file. It reads only the files of runs, and never imports torch."""

from toughen.report.write import write_report as write_report
