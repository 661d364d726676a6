"""What clinicians meet: nothing yet."""
