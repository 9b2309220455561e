"""Calibrations of versions that are there already: jobs that rank the labels of a file's rows."""
