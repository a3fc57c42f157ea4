"""Results as one self-contained HTML file. Reads what a run's files say, and never imports torch."""

from toughen.report.write import write_report as write_report
