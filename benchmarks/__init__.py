"""Measured against torch, TorchJD and plain Keras, side by side:  python -m benchmarks"""
