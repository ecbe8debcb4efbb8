"""A package, so that no other `tests` on the path is taken for it: some distributions install theirs at the top level."""
