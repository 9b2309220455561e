"""More than one process: the Ray Serve application, and datasets on Ray Data."""
