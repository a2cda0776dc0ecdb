"""Map tiles: single tiles, rectangles of tiles, and zoom levels."""
