"""A load generator. It drives a server as many clients would, and reports what they would notice."""

from chorus.load.report import Report, report_of
from chorus.load.runner import run_load
from chorus.load.spec import LoadSpec

__all__ = ["LoadSpec", "Report", "report_of", "run_load"]
