"""From renal-biopsy slides to glomerulus labels, and from labels to a model that can be trusted.

Research use only: nothing in this package is a medical device.
"""
