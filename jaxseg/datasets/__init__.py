"""Datasets, one a file: `load('datasets', 'camvid').source('train')` gives decoded examples at random.

A file has CLASS_NAMES, PALETTE, NUM_CLASSES (None where the user's files tell), SPLITS, perhaps SCORES,
the further scores of jaxseg.metrics that its data are known for, and SIZE, (height, width) of its largest
image, which is read where a program is compiled without data, and

    source(split, *, data_dir=None, cache_dir=None, **options)

whose options are the config's group data.options. `data_dir` is the folder that holds the datasets'
folders, by default $JAXSEG_DATA, else ~/jaxseg_data; `cache_dir` gets the records, by default
$JAXSEG_CACHE, else ~/.cache/jaxseg. It gives data.source.Source, or what has the same, and raises
UserError for an unknown or hidden split, a wrong option, files that are missing or damaged, and
labels outside of the classes. The raw files of a split become records by a function `read(raw)`.
"""
