"""What was used: a row for each item, the sums of each hour, and how long both are kept."""
