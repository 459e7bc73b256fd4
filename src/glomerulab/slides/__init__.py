"""Open slides, read regions at a given mpp, cut crops, and copy slides without identity.

The only package that opens slides.
"""
