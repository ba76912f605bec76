"""What was accepted and is not yet delivered, and when to try again."""
