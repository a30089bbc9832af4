"""The tests, one noun a file."""
