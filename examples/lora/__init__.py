"""A character GPT that knows Python's help is adapted to reviews of clothes: a rate of its own for LoRA's B."""
