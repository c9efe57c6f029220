"""Building blocks of detectors: boxes, anchors, matching, sampling, NMS, masks. Pure, static shapes.

A box is float32 (x0, y0, x1, y1) in pixels, with exclusive far edges: a one-pixel object at the origin
has 0, 0, 1, 1. Functions take one image; models vmap them over a batch.
"""
