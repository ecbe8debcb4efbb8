"""A finding, as the checks make it; `groupwise._finding` says what it is."""

from groupwise._finding import SEVERITIES, Finding, Severity

__all__ = ["SEVERITIES", "Finding", "Severity"]
