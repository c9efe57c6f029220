"""Pictures: of labels, of objects, sheets of several, and plots of numbers."""
