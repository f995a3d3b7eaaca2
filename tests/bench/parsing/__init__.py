"""What the reading of hostile bodies costs beside that of ordinary ones."""
