"""Reading files that others made: media by PyAV, HDF5, pickles of plain arrays, and optical flow."""
