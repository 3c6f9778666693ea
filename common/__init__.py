"""What every project may use, and no paper claims as its own idea."""
