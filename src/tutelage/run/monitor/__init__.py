"""What a search is watched for: signs of collapse, early stopping, students and teacher."""
