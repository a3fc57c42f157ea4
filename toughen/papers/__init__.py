"""Runs what ``toughen.papers`` states, keeps what comes out, and shows it beside the published figures."""
