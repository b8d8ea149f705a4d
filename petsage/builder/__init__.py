"""A feature request → a folder that was checked, tested and served."""
