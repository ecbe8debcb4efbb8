"""A pre-trained word table of 11.7 million numbers, of which a batch touches a thirtieth."""
