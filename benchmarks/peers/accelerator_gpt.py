"""A GPT-2 in plain torch, the shape that nanoGPT trains: the peer to beat in `accelerator.py`."""

from __future__ import annotations

import torch
from torch.nn import functional

from peers.accelerator_cells import Cell


class Block(torch.nn.Module):
    """Attention and feed-forward, each behind its norm."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = torch.nn.LayerNorm(hidden), torch.nn.LayerNorm(hidden)
        self.projection, self.output = torch.nn.Linear(hidden, 3 * hidden), torch.nn.Linear(hidden, hidden)
        self.expand, self.contract = torch.nn.Linear(hidden, 4 * hidden), torch.nn.Linear(4 * hidden, hidden)

    def forward(self, x):
        rows, length, width = x.shape
        parts = self.projection(self.attention_norm(x)).split(width, 2)
        query, key, value = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        context = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(context.transpose(1, 2).reshape(rows, length, width))
        expanded = functional.gelu(self.expand(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.contract(expanded)


class GPT(torch.nn.Module):
    """(ids, next ids) -> the mean loss; the token table is the head."""

    def __init__(self, cell: Cell):
        super().__init__()
        self.tokens = torch.nn.Embedding(cell.filled_vocabulary, cell.hidden)
        self.positions = torch.nn.Embedding(1024, cell.hidden)
        self.blocks = torch.nn.ModuleList(Block(cell.hidden, cell.heads) for _ in range(cell.layers))
        self.norm = torch.nn.LayerNorm(cell.hidden)
        for weight in self.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.02)

    def forward(self, ids, labels):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.tokens.weight)
        return functional.cross_entropy(logits.view(-1, logits.size(-1)), labels.reshape(-1))
