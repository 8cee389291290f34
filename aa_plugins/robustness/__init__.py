"""What networks do on images that aren't those they were trained on: corrupted, without a band of
frequencies, shifted by an adversary, of a video, of new classes."""
