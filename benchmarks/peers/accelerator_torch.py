"""The torch peers of `accelerator.py`: Hugging Face's models and a GPT as nanoGPT writes it, all compiled."""

from __future__ import annotations

import functools

import numpy as np

from peers.accelerator_cells import (
    CLIP,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Cell,
    class_labels,
    hidden_places,
    token_rows,
)


def _torch():
    """torch, its float32 products in TF32 where the device has it, and the device."""
    import torch

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    return torch, "cuda" if torch.cuda.is_available() else "cpu"


def _peak_memory() -> float | None:
    torch, device = _torch()
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None


class Training:
    """One measurement of training: some steps under autocast to bfloat16, the loss read at the end.

    Args:
        model: a torch module.
        loss_of: (tensors of a batch) -> loss.
        arrays: of all batches, each [batch * steps, ...].
        cell: Cell.
    """

    def __init__(self, model, loss_of, arrays, cell: Cell):
        torch, self.device = _torch()
        self.torch, self.model, self.losses = torch, model, []
        self.loss_of = torch.compile(loss_of) if self.device == "cuda" else loss_of
        tensors = [torch.from_numpy(array).long().to(self.device) for array in arrays]
        self.batches = list(zip(*(tensor.split(cell.batch) for tensor in tensors), strict=True))
        self.optimizer = torch.optim.AdamW(
            model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=self.device == "cuda"
        )

    def __call__(self):
        total = 0.0
        for batch in self.batches:
            with self.torch.autocast(self.device, dtype=self.torch.bfloat16):
                loss = self.loss_of(*batch)
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total = total + loss.detach()
        self.losses.append(float(total) / len(self.batches))
        if not np.isfinite(self.losses[-1]):
            raise FloatingPointError(f"The loss became {self.losses[-1]}.")

    def facts(self) -> dict:
        return {"losses": self.losses, "peak_gib": _peak_memory()}


# ---- Hugging Face -----------------------------------------------------------------------------------------------


def hugging_face(cell: Cell):
    """transformers' model, scaled dot product attention, compiled; its masked head at the hidden places alone."""
    torch, device = _torch()
    if cell.kind == "decoding":
        return _Decoding(cell)
    if cell.kind == "causal":
        model = _gpt2(cell, device).train()

        def loss_of(ids, labels):
            logits = model(input_ids=ids, use_cache=False).logits
            return torch.nn.functional.cross_entropy(logits.view(-1, cell.vocabulary), labels.reshape(-1))

        ids = token_rows(cell)
        return Training(model, loss_of, [ids, np.roll(ids, -1, 1)], cell)
    import transformers

    model_class = {
        "masked": transformers.BertForMaskedLM,
        "classes": transformers.BertForSequenceClassification,
    }[cell.kind]
    model = model_class(_bert_config(cell)).to(device).train()
    if cell.kind == "classes":

        def class_loss(ids, labels):
            return model(input_ids=ids, labels=labels).loss

        return Training(model, class_loss, [token_rows(cell), class_labels(cell)], cell)

    def masked_loss(ids, places, labels):
        hidden = model.bert(input_ids=ids).last_hidden_state
        hidden = torch.gather(hidden, 1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return torch.nn.functional.cross_entropy(model.cls(hidden).view(-1, cell.vocabulary), labels.reshape(-1))

    ids, places = token_rows(cell), hidden_places(cell)
    return Training(model, masked_loss, [ids, places, np.take_along_axis(ids, places, 1)], cell)


def _bert_config(cell: Cell):
    import transformers

    return transformers.BertConfig(
        vocab_size=cell.vocabulary,
        hidden_size=cell.hidden,
        num_hidden_layers=cell.layers,
        num_attention_heads=cell.heads,
        intermediate_size=4 * cell.hidden,
        hidden_dropout_prob=cell.dropout,
        attention_probs_dropout_prob=cell.dropout,
        attn_implementation="sdpa",
    )


def _gpt2(cell: Cell, device, dtype=None):
    import transformers

    config = transformers.GPT2Config(
        vocab_size=cell.vocabulary,
        n_positions=1024,
        n_embd=cell.hidden,
        n_layer=cell.layers,
        n_head=cell.heads,
        resid_pdrop=cell.dropout,
        embd_pdrop=cell.dropout,
        attn_pdrop=cell.dropout,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    return transformers.GPT2LMHeadModel(config).to(device, dtype)


class _Decoding:
    """`generate` with a static cache, which transformers compiles on a GPU."""

    def __init__(self, cell: Cell):
        torch, device = _torch()
        self.cell, self.torch = cell, torch
        self.model = _gpt2(cell, device, torch.bfloat16 if device == "cuda" else torch.float32).eval()
        self.ids = torch.from_numpy(token_rows(cell)).long().to(device)

    def __call__(self):
        with self.torch.inference_mode():
            found = self.model.generate(
                self.ids,
                attention_mask=self.torch.ones_like(self.ids),
                max_new_tokens=self.cell.length,
                min_new_tokens=self.cell.length,
                do_sample=False,
                pad_token_id=0,
                cache_implementation="static",
            )
        count = found.cpu().shape[1] - self.cell.length
        if count != self.cell.length:
            raise AssertionError(f"{count} tokens, not {self.cell.length}.")

    def facts(self) -> dict:
        return {"peak_gib": _peak_memory()}


# ---- as nanoGPT writes it ---------------------------------------------------------------------------------------


def nano_gpt(cell: Cell):
    """A GPT-2 of a hundred lines: one product for queries, keys and values, fused attention, a filled vocabulary."""
    _, device = _torch()
    model = _modules().GPT(cell).to(device)
    ids = token_rows(cell)
    return Training(model, model, [ids, np.roll(ids, -1, 1)], cell)


@functools.cache
def _modules():
    """The module classes, which need torch to be defined."""
    from peers import accelerator_gpt

    return accelerator_gpt
