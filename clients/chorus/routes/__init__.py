"""Every route of the REST interface as a function that describes the call; nothing here does I/O with the
server.
"""
