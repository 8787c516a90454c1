"""Strategies, the train step, optimizers, schedules, metrics and callbacks for any Keras 3 model."""

from tfxformer.backend import needs_keras

needs_keras("tfxformer.training")

from tfxformer.training.callbacks.averages import SwapEMAWeights
from tfxformer.training.callbacks.history import HistoryFiles
from tfxformer.training.callbacks.rate_finder import LearningRates, find_learning_rate
from tfxformer.training.callbacks.recovery import Recover, Recovery, TrainingDivergedError
from tfxformer.training.callbacks.robust.adversarial import AdversarialTraining
from tfxformer.training.callbacks.robust.elastic_weights import ElasticWeightConsolidation
from tfxformer.training.callbacks.robust.r_drop import RDrop
from tfxformer.training.callbacks.tensorboard import TensorBoard
from tfxformer.training.callbacks.throughput import Throughput
from tfxformer.training.compiling.label_smoothing import SmoothedCrossEntropy
from tfxformer.training.compiling.metrics import Perplexity
from tfxformer.training.devices.layout import layout
from tfxformer.training.devices.strategy import strategy
from tfxformer.training.devices.workers import LostWorkerError
from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.memory.fit_estimate import MemoryEstimate, fit_estimate, gpu_memory
from tfxformer.training.memory.shapes_only import shapes_only
from tfxformer.training.memory.tpu_check import CompilerError, LoweringError, Step, TPUReport, tpu_check
from tfxformer.training.optimizers.optimizers import SGD, Adafactor, AdamW, Lamb, Lion, adamw, optimizer
from tfxformer.training.optimizers.schedules import (
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupPolynomial,
    WarmupStableDecay,
    schedule,
)
from tfxformer.training.resume.checkpoint_state import ResumeError
from tfxformer.training.resume.data_positions import Epochs
from tfxformer.training.resume.resume import Resume
from tfxformer.training.scheduled_model import ScheduledModel

__all__ = [
    "SGD",
    "Adafactor",
    "AdamW",
    "AdversarialTraining",
    "CompilerError",
    "DistributedModel",
    "ElasticWeightConsolidation",
    "Epochs",
    "HistoryFiles",
    "Lamb",
    "LearningRates",
    "Lion",
    "LostWorkerError",
    "LoweringError",
    "MemoryEstimate",
    "Perplexity",
    "RDrop",
    "Recover",
    "Recovery",
    "Resume",
    "ResumeError",
    "ScheduledModel",
    "SmoothedCrossEntropy",
    "Step",
    "SwapEMAWeights",
    "TPUReport",
    "TensorBoard",
    "Throughput",
    "TrainingDivergedError",
    "WarmupCosine",
    "WarmupInverseSqrt",
    "WarmupLinear",
    "WarmupPolynomial",
    "WarmupStableDecay",
    "adamw",
    "find_learning_rate",
    "fit_estimate",
    "gpu_memory",
    "layout",
    "optimizer",
    "schedule",
    "shapes_only",
    "strategy",
    "tpu_check",
]
