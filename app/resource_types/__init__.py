"""The types of record that a tenant may import: those of the product, and its own."""
