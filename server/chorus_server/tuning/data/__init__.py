"""Files become examples: readers, columns, checks with row numbers, splits, order of batches."""
