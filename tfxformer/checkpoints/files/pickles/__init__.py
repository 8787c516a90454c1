"""What torch.save writes, read as data: a pickle machine that knows tensors only, zip archives, the older streams."""
