"""From media files to batches: data sets, decoding, the prepared folder, loading and transforms."""
