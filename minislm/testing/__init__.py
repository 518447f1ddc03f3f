"""What an author of an op, a kernel, a storage format, a model or a method needs to find their mistakes.

tolerances, shapes   how close two results must be; array names that end in their axes, read along by a machine
laws, cases          what every op keeps, and sampled arguments for each
kernels              what every kernel keeps: start with ``kernels.check_kernel(function, op="rms_norm")``
weights, models      what every storage of a matrix keeps; what every causal model keeps
programs, replays    what a lowered model keeps, and its passes that are done again by a few calls
methods              what every compression method keeps

The other modules hold the samples and the Hypothesis strategies that these draw from.
"""
