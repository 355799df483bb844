"""What do 32 tasks of three kinds look like through one registry, and what does each mixing give them?"""
