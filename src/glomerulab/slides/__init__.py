"""Slides: open them, read regions at a stated mpp, cut, copy without identity.

The only place that opens slides.
"""
