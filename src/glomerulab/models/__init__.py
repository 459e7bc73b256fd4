"""Networks: logits (B, K) from images (B, 3, H, W), and the checkpoint format."""
