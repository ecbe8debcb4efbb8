"""A small GPT over characters: which algorithm moves the matrices."""
