"""What a request passes before its route: who asks, and whether there is room, before the body is read."""
