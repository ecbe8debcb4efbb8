"""A package, so that no other `tests` is taken for it: some distributions install theirs at the top level."""
