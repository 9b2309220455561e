"""The console: pages that show and do in a browser what the commands do. See docs/console.md.

It asks the server as any program does, through `chorus`, without a network in between. So what a page shows,
a route gives.
"""

from chorus_console.door import Sessions, Work
from chorus_console.routes import console_routes

__all__ = ["Sessions", "Work", "console_routes"]
