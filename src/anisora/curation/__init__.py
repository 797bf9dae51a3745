"""Raw animation videos in, a training set out: scan, shots, filters, repeats, captions, selection, shards, report."""
