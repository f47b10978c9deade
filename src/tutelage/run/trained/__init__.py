"""What is done with a trained network: measured, used for images, written in other formats."""
