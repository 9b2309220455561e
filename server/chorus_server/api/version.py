"""The server's version, from the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("chorus-prompts")
except PackageNotFoundError:  # it runs from a source folder that was never installed
    VERSION = "0"
