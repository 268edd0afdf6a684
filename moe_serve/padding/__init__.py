"""What a kernel may skip: the padding contract. Pure: no clock, no environment, no files."""
