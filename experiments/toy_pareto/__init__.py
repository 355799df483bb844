"""Where do the combiners end on two-parameter problems whose Pareto sets are known?"""
