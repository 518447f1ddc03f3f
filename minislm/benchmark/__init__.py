"""What `minislm bench` measures: the machine's limits, models of known shapes, and rivals beside them."""
