"""The formats of annotation tools: each a file with `find(root)`, which returns an annotations.Layout."""
