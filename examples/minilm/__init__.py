"""MiniLM's encoder learns from 240 reviews which department they are about: layer-wise decay, and a new head."""
