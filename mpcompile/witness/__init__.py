"""Outside executors of a model's file, and whether the file was read as they compute it: none of what they run is ours."""
