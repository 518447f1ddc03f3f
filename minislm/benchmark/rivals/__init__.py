"""Other engines, each in the way that is fastest for it; what a file needs is installed by the extra `bench`."""
