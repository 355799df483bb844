"""Three generated tasks of the support desk of an invented bank.

products → sheets → rows: product facts, sheets of them with questions, the rows of all tasks. messages: complaints and
moods of customers. prose: texts to pretrain on. settings: the comparison that `mtl-opt compare` runs by default.
"""
