"""Does uncertainty weighting learn the noise of its tasks?"""
