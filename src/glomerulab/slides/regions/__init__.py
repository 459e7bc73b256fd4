"""Region files of QuPath, ImageScope, ASAP, COCO and CSV."""
