"""What the settings of a point do to a model: one function for each axis, from a model to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfxformer import compression
from tfxformer.generation import Beams
from tfxformer.recipes import pipeline
from tfxformer.recipes.sweep.recipe import Distil, Prune, Recipe, Structure, Tune

TAYLOR_TEXTS = 256  # on which importances are measured


@dataclass(frozen=True)
class Context:
    """What every stage has at hand.

    Attributes:
        recipe: Recipe.
        texts, labels: those of training, without the held-out ones.
        open_model: () -> the task on its pretrained checkpoint, its head new.
        teacher: () -> the tuned model with the point's vocabulary.
        verbose: Keras' progress of `fit`.
    """

    recipe: Recipe
    texts: list
    labels: list
    open_model: Callable
    teacher: Callable
    verbose: int | str = "auto"


def tune(_, setting: Tune, context: Context):
    """The checkpoint, fine-tuned; LoRA factors are merged, so that a plain model is left."""
    model, adapters = context.open_model(), None
    if setting.lora is not None:
        adapters = compression.Adapters(model)
        adapters.add("sweep", compression.LoRA(rank=setting.lora, targets=is_kernel_of_a_block))
    _fit(model, setting, context)
    if adapters is not None:
        adapters.merge()
    return model


def is_kernel_of_a_block(layer) -> bool:
    """Whether LoRA stands beside this layer: all of attention and feed-forward (arXiv:2305.14314, section 4)."""
    return "_block_" in layer.path


def trim(model, _, context: Context):
    """The vocabulary of the training texts and targets; those of words or pairs are taken apart."""
    texts = [*context.texts, *context.labels] if context.recipe.writes else context.texts
    texts = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    return compression.trim_vocabulary(model, texts)


def restructure(model, setting: Structure, context: Context):
    """Fewer layers, then fewer heads and neurons of those left; of an encoder-decoder in one stack or in both."""
    stacks = [setting.stack] if setting.stack else list(model.backbone.config.stacks)
    for stack in stacks:
        if setting.layers is not None:
            model = compression.student_from(model, keep=setting.layers, stack=stack)
    if setting.heads is None and setting.neurons is None:
        return model
    chosen = np.random.default_rng(context.recipe.seed).permutation(len(context.texts))[:TAYLOR_TEXTS]
    data = [context.texts[i] for i in chosen], [context.labels[i] for i in chosen]
    for remove, keep in ((compression.remove_heads, setting.heads), (compression.remove_neurons, setting.neurons)):
        for stack in stacks if keep is not None else ():
            model.compile()
            model = remove(model, keep, "taylor", data, context.recipe.batch_size, stack=stack)
    return model


def distil(model, setting: Distil, context: Context):
    """The model, taught by the tuned one."""
    taught, context = _taught(model, setting, context)
    _fit(taught, setting, context)
    return model


def prune(model, setting: Prune, context: Context, teaching: Distil | None = None):
    """The model with zeros among its weights, taught as it was before."""
    taught, context = (model, context) if teaching is None else _taught(model, teaching, context)
    _fit(taught, setting, context, setting.sparsity)
    return model


def _taught(student, setting: Distil, context: Context) -> tuple:
    """A student with its teacher, and the context with the targets that it learns."""
    teacher = context.teacher()
    if setting.beams is not None:
        sampler = Beams(setting.beams) if setting.beams > 1 else None
        options = {"batch_size": context.recipe.batch_size, "verbose": context.verbose}
        written = compression.teacher_targets(teacher, context.texts, sampler, **options)
        context = dataclasses.replace(context, labels=written)
    losses = [compression.LogitsLoss(setting.temperature)]
    if setting.hidden_states:
        losses.append(compression.HiddenStateLoss())
    return compression.Distiller(student, teacher, losses, label_weight=setting.label_weight), context


def _fit(trained, setting, context: Context, sparsity: float | None = None):
    """Fits a model, or the Distiller around it."""
    dials = {"epochs": setting.epochs, "learning_rate": setting.learning_rate, "sparsity": sparsity}
    batch_size = context.recipe.batch_size
    pipeline.fit(trained, context.texts, context.labels, batch_size=batch_size, verbose=context.verbose, **dials)


STAGES = {"tune": tune, "vocabulary": trim, "structure": restructure, "distil": distil, "prune": prune}
