"""What is removed once it is past its time: `app.retention.queries` finds whose, and removes it in small batches."""
