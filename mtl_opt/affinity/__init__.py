"""How tasks relate: what to share (`mtl-opt share`), and which tasks to train together (`mtl-opt group`)."""

from mtl_opt.affinity.group import GroupOptions, group_tasks
from mtl_opt.affinity.share import ShareOptions, share_by_conflict

__all__ = ["GroupOptions", "ShareOptions", "group_tasks", "share_by_conflict"]
