"""What detectors share: boxes, anchors, matching, sampling, suppression, masks. Pure, fixed shapes.

A box is float32 (x0, y0, x1, y1) in pixels, its far edges exclusive: a one-pixel object at the origin
has 0, 0, 1, 1. Functions see one image; models map them over a batch with vmap.
"""
