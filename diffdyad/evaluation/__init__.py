"""Metrics that anyone can check: other projects' as they print them, corrected ones beside them, with controls."""
