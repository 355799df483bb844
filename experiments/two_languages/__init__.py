"""Do Chinese and English instruction tasks of a LLaMA-Factory folder pull one model apart?"""
