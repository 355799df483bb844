"""Does any way to merge gradients beat the sum where one picture holds two digits?"""
