"""Data sets that clip-eval can write itself, each as ordinary `wds_*` folders and training shards."""
