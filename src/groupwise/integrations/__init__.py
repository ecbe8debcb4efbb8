"""Adapters for trainers that drive an optimizer their own way; only where the plain objects do not do.

Accelerate, Lightning and Fabric take a `GroupedOptimizer` and a `PlanScheduler` as they are, and so does Hugging Face's
Trainer where it lets one build them. Nothing here imports a trainer.
"""

from groupwise.integrations.huggingface import OptimizerFactory, PlanMixin

__all__ = ["OptimizerFactory", "PlanMixin"]
