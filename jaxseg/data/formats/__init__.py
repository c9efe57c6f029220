"""Annotation formats, one per file, with `find(root)`, which returns an annotations.AnnotatedFolder or None."""
