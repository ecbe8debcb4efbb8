"""An EfficientNet that knows ImageNet learns Fashion-MNIST from 1,000 labels: what to tune, and how fast."""
