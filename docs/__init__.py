"""Sources of the documentation, and what writes parts of it from the code as it is built (generate/)."""
