"""Two networks in turns, one optimizer: a GAN that draws digits."""
