"""A function of JAX as an ONNX model: its jaxpr, primitive by primitive, with the `onnx` package alone.

Forward only, for what this library's networks and their programs are made of; sizes may be dimension
variables of `jax.export`. What depends on weights alone is computed here, so that kernels are constants.
No kept converter covers them: jax2onnx 0.17.1 refuses all five networks' programs, at one size as at any
(`platform_index`, padding of mixed types, free sizes that are compared).

  graph.py       nodes, constants, free sizes
  jaxpr.py       the walk: calls, branches, loops, what is known beforehand
  operators.py   a primitive each: elementwise, shapes, reductions, products
  windows.py     convolution, pooling, padding, indexing
"""
