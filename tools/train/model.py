"""The Llama architecture in plain PyTorch, with the parameter names of the Hugging Face format."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    vocab: int = 3072
    hidden: int = 256
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    ffn: int = 640
    context: int = 2048
    theta: float = 10000.0
    eps: float = 1e-5


def rope_tables(config, length):
    """cos and sin of [length, head_dim]; the two halves of a head rotate together."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    angles = torch.outer(torch.arange(length, dtype=torch.float32),
                         config.theta ** (-half / config.head_dim))
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class WeightedLoss(torch.autograd.Function):
    """Sum of weight * cross entropy of tied logits, without ever holding all logits.

    The gradient is made in the forward pass, chunk by chunk: on CPU the full logit matrix and its
    copies cost more than a quarter of a step.
    """

    CHUNK = 512

    @staticmethod
    def forward(ctx, hidden, table, targets, weights):
        wide = table.to(torch.bfloat16)
        grad_hidden, grad_table = torch.empty_like(hidden), torch.zeros_like(table)
        total = 0.0
        for at in range(0, hidden.shape[0], WeightedLoss.CHUNK):
            part = slice(at, at + WeightedLoss.CHUNK)
            h, t, w = hidden[part], targets[part, None], weights[part, None]
            logits = (h @ wide.T).float()
            log_sum = torch.logsumexp(logits, -1, keepdim=True)
            total += ((log_sum - logits.gather(1, t)) * w).sum().item()
            p = logits.sub_(log_sum).exp_()
            p.scatter_add_(1, t, torch.full_like(w, -1.0))
            p = p.mul_(w).to(torch.bfloat16)
            grad_hidden[part] = p @ wide
            grad_table += p.T @ h
        ctx.save_for_backward(grad_hidden, grad_table)
        return hidden.new_tensor(total, dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * grad, grad_table * grad, None, None


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        c = self.c
        split = lambda y, n: y.view(batch, length, n, c.head_dim).transpose(1, 2)
        q = rotate(split(self.q_proj(x), c.heads), cos, sin)
        k = rotate(split(self.k_proj(x), c.kv_heads), cos, sin)
        v = split(self.v_proj(x), c.kv_heads)
        share = c.heads // c.kv_heads
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden, c.ffn, bias=False)
        self.up_proj = nn.Linear(c.hidden, c.ffn, bias=False)
        self.down_proj = nn.Linear(c.ffn, c.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = Norm(c.hidden, c.eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c.hidden, c.eps)
        self.mlp = Mlp(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.embed_tokens = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = Norm(c.hidden, c.eps)
        cos, sin = rope_tables(c, c.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / ((2 * c.layers) ** 0.5 if deep else 1.0))

    def forward(self, ids, positions):
        """Hidden states after the last norm, [batch, length, hidden], in bf16 under autocast."""
        x = self.embed_tokens(ids)
        cos = self.cos[positions][:, None].to(torch.bfloat16)
        sin = self.sin[positions][:, None].to(torch.bfloat16)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def token_losses(self, hidden, targets):
        """Cross entropy and correctness per position: (loss, right)."""
        logits = F.linear(hidden, self.embed_tokens.weight).float()
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return loss.view(targets.shape), logits.argmax(-1) == targets
