"""Mixtures of LoRA matrices and experts, written token by token as the papers have them."""

import torch
from torch import Tensor


def softmax(values: Tensor) -> Tensor:  # [n] -> [n]
    """Divide exponentials by their sum."""
    powers = (values - values.max()).exp()
    return powers / powers.sum()


def mtl_lora(x: Tensor, task: int, m) -> Tensor:  # [in] -> [out]
    """Compute `s Σ_n softmax(w_t / τ)_n B_n Λ_t A x`."""
    weights = softmax(m.task_mixture[task] / m.temperature)
    transform = torch.diag(m.task_transform[task]) if m.diagonal else m.task_transform[task]
    h = transform @ (m.lora_A.weight @ x)
    rank = len(m.lora_A.weight)
    parts = [weights[n] * (m.lora_B.weight[:, n * rank : (n + 1) * rank] @ h) for n in range(m.num_b)]
    return m.scaling * sum(parts)


def hydra(x: Tensor, task: int, m) -> Tensor:  # noqa: ARG001 - the router sees no task
    """Compute `s Σ_n softmax(R x)_n B_n A x`."""
    rank = len(m.lora_A.weight) - m.num_b
    weights = softmax(m.lora_A.weight[rank:] @ x)
    h = m.lora_A.weight[:rank] @ x
    parts = [weights[n] * (m.lora_B.weight[:, n * rank : (n + 1) * rank] @ h) for n in range(m.num_b)]
    return m.scaling * sum(parts)


def experts(x: Tensor, task: int, m) -> Tensor:
    """Compute `s Σ_e g_te B_e A_e x` over shared experts and those of the task."""
    gates = softmax(m.task_gate[task] @ x if m.by_token else m.task_gate[task])
    a, b = m.lora_A.weight, m.lora_B.weight
    if len(m.task_A):
        a, b = torch.cat([a, m.task_A[task]]), torch.cat([b, m.task_B[task]], 1)
    parts = []
    for e, g in enumerate(gates):
        own = slice(e * m.rank, (e + 1) * m.rank)
        parts.append(g * (b[:, own] @ (a[own] @ x)))
    return m.scaling * sum(parts)


def sparse_experts(x: Tensor, task: int, m) -> Tensor:  # noqa: ARG001 - the router sees no task
    """Compute `s Σ p_e B_e A_e x` over the experts with the largest logits."""
    logits = m.router.weight @ x
    best = sorted(range(len(logits)), key=lambda e: -float(logits[e].detach()))[: m.top_k]
    gates = softmax(logits)[best] if m.top_k == 1 else softmax(logits[best])
    parts = []
    for e, g in zip(best, gates, strict=True):
        a, b = expert_of(m, e)
        parts.append(g * (b @ (a @ x)))
    return m.scaling * sum(parts)


def expert_of(m, e: int) -> tuple[Tensor, Tensor]:  # [rank, in], [out, rank]
    """Give the matrices of one sparse expert, each its own parameter (grouped) or a part of one (masked)."""
    if hasattr(m.lora_A, "weight"):
        own = slice(e * m.rank, (e + 1) * m.rank)
        return m.lora_A.weight[own], m.lora_B.weight[:, own]
    return m.lora_A[e].weight, m.lora_B[e].weight


def every_token(x: Tensor, ids: Tensor, of_token, m) -> Tensor:  # [batch, seq, in], [batch] or [batch, seq]
    """Run every token by itself."""
    owners = ids if ids.dim() == 2 else ids[:, None].expand(x.shape[:2])
    rows = [
        torch.stack([of_token(token, int(task), m) for token, task in zip(row, own, strict=True)])
        for row, own in zip(x, owners, strict=True)
    ]
    return torch.stack(rows)


def router_terms(logits: Tensor, owners: Tensor, real: Tensor, num_tasks: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Compute balance loss and z-loss of every task for one router: `[tokens, experts]`, `[tokens]`, `[tokens]`."""
    balance, z = torch.zeros(num_tasks), torch.zeros(num_tasks)
    number = logits.shape[1]
    for task in range(num_tasks):
        own = [logits[n] for n in range(len(logits)) if int(owners[n]) == task and bool(real[n])]
        if not own:
            continue
        picks, mean = torch.zeros(number), torch.zeros(number)
        for token in own:
            for expert in token.argsort(descending=True)[:top_k].tolist():
                picks[expert] += 1 / top_k / len(own)
            mean = mean + softmax(token) / len(own)
            z[task] = z[task] + torch.log(token.exp().sum()) ** 2 / len(own)
        balance[task] = number * (picks * mean).sum()
    return balance, z
