"""Datasets, one per file: `load('datasets', 'camvid').source('train')` has random access to examples.

A file has CLASS_NAMES, PALETTE, NUM_CLASSES (None if the user's files define it), SPLITS, optionally
SCORES, further scores of jaxseg.metrics that are usual for its data, and SIZE, (height, width) of its
largest image, for compiling a program without data, and

    source(split, *, data_dir=None, cache_dir=None, **options)

whose options are the config's group data.options. `data_dir` is the folder of all datasets, by default
$JAXSEG_DATA, else ~/jaxseg_data; `cache_dir` is for the records, by default $JAXSEG_CACHE, else
~/.cache/jaxseg. It returns a data.source.Source or equivalent, and raises UserError for an unknown or
hidden split, an invalid option, missing or damaged files, and labels outside the classes. A function
`read(raw)` makes a record of an example's raw files.
"""
