"""What a run writes about itself: run folder, TensorBoard, progress line."""
