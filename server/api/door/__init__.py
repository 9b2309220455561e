"""What every route stands behind: who asks is settled, and whether there is room, before a body is read."""
