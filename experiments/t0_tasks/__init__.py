"""Do the gradients of four real text tasks conflict on a tiny pretrained Llama, and do combiners differ there?"""
