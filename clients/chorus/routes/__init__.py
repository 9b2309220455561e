"""Every route of the REST interface, as a function that describes the call. Nothing here does I/O with the
server.
"""
