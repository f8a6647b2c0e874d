"""The embedded quick-start world: rendered clips with one ground truth, written in the big datasets' native formats."""
