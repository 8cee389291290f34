"""What filters do in a trained network."""
