"""Does a sum ignore the task with small targets, and does GradNorm restore it?"""
