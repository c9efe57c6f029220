"""Pictures of labels and objects, contact sheets, and plots."""
