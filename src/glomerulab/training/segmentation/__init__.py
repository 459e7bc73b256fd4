"""Training of segmenters: sets of images with masks, patches, losses, and the loop."""
