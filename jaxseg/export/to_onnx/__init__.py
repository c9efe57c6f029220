"""Converts a JAX function to an ONNX model: its jaxpr, primitive by primitive, with only the `onnx` package.

Forward only, for the primitives of this library's networks and programs; sizes may be dimension variables
of `jax.export`. Whatever depends on weights alone is folded, so that kernels are constants. No maintained
converter covers this: jax2onnx 0.17.1 refuses the programs of all five networks, for fixed and free sizes
alike (`platform_index`, padding of mixed types, comparison of free sizes).

  graph.py       nodes, constants, free sizes
  jaxpr.py       the traversal: calls, branches, loops, constant folding
  operators.py   primitives: elementwise, shapes, reductions, products
  windows.py     convolution, pooling, padding, indexing
"""
