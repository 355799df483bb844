"""Ways of sharing as their equations say it: row by row, token by token, with every matrix formed."""

import torch
from torch import nn
from torch.nn import functional as F


def update(adapter, task):
    """Form `ΔW_t` of a layer."""
    a, b = adapter.lora_of(task)
    return b @ a


def distance(updates, strength):
    """Sum half the squared distances of all pairs of whole updates."""
    total = 0.0
    for i in range(len(updates)):
        for j in range(i):
            total = total + 0.5 * (updates[i] - updates[j]).square().sum()
    return strength / (len(updates) - 1) * total


def nuclear(updates, strengths):
    """Sum the singular values of the matrix that has the whole updates as rows."""
    rows = torch.stack([s * u.flatten() for s, u in zip(strengths, updates, strict=True)])
    return torch.linalg.matrix_norm(rows, "nuc")


def stitched(x, ids, stitch, adapters):
    """Mix the outputs of all adapters for each row in the proportions of its task."""
    rows = []
    for row, task in zip(x, ids, strict=True):
        rows.append(sum(stitch[task][j] * (row @ a.T @ b.T) for j, (a, b) in enumerate(adapters)))
    return torch.stack(rows)


def masked(h, ids, mask):
    """Weigh the features of each token by the mask of its row's task."""
    rows = []
    for row, task in zip(h, ids, strict=True):
        inner = torch.relu(row @ mask.down.weights[task].T + mask.down.biases[task])
        rows.append(row * 2 * torch.sigmoid(inner @ mask.up.weights[task].T + mask.up.biases[task]))
    return torch.stack(rows)


def as_multihead(attention, task):
    """Build torch's own attention with the parameters of one task."""
    dim = attention.shared.in_features
    plain = nn.MultiheadAttention(dim, attention.num_heads, batch_first=True)
    with torch.no_grad():
        plain.in_proj_weight.copy_(attention.qkv.weights[task])
        plain.in_proj_bias.copy_(attention.qkv.biases[task])
        plain.out_proj.weight.copy_(attention.out.weights[task])
        plain.out_proj.bias.copy_(attention.out.biases[task])
    return plain


def rotation(angles, block):
    """Form the rotation of one task from its angles, block by block."""
    blocks = []
    for values in angles:
        skew = torch.zeros(block, block, dtype=torch.float64)
        rows, columns = torch.tril_indices(block, block, offset=-1)
        skew = skew.index_put((rows, columns), values.double())
        blocks.append(torch.matrix_exp(skew - skew.T).to(values.dtype))
    return torch.block_diag(*blocks)


def rotograd_objective(angles, gradients, block):
    """Compare every turned gradient with the mean direction, written out."""
    turned = [rotation(a, block).T @ g for a, g in zip(angles, gradients, strict=True)]
    mean = sum((g / g.norm()).detach() for g in turned) / len(turned)
    return sum(1 - torch.dot(g, mean) / (g.norm() * mean.norm()) for g in turned)


class Reverse(torch.autograd.Function):
    """Gradient reversal as Ganin and Lempitsky write it."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.factor * gradient, None


def adversarial(z, ids, kept, classifier, strength, num_tasks):
    """Compute the discriminator's cross-entropy by task, tokens one by one, with the gradient of features reversed."""
    losses = [[] for _ in range(num_tasks)]
    for row, task, mask in zip(z, ids, kept, strict=True):
        for token, counts in zip(row, mask, strict=True):
            if counts:
                scaled = token * torch.rsqrt(token.square().mean() + 1e-6)
                logits = classifier(Reverse.apply(scaled, strength))
                losses[task].append(F.cross_entropy(logits, torch.tensor(int(task))))
    return [torch.stack(found).mean() if found else None for found in losses]
