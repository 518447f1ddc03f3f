"""Model folders and files, read without trust and written without loss."""
