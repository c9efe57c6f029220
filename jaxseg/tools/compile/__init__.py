"""Programs compiled by the TPU's own compiler for a slice that is not there: nothing is run or allocated."""
