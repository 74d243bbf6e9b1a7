"""Training a recipe, and reading back what it left."""
