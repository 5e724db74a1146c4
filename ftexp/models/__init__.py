"""Networks: the catalogue of timm and torchvision, blocks, heads, weights files, and the cut before a block."""
